import { Readable } from 'node:stream'
import { ApkError, type ApkInfo, parseApk } from '@cloudphone/apk/apk'
import { ProblemError } from '@cloudphone/runtime/problem'
import { problems } from '../errors.ts'

/** The bytes of an upload, cut off with `apk_too_large` as soon as there are more than allowed: the disk never sees them. */
export function limited(source: Readable, limitBytes: number): Readable {
  async function* counted() {
    let sizeBytes = 0
    for await (const chunk of source as AsyncIterable<Buffer>) {
      sizeBytes += chunk.length
      if (sizeBytes > limitBytes) throw problems.apk_too_large({ limitBytes })
      yield chunk
    }
  }
  return Readable.from(counted())
}

/** Describes an APK in a file. @throws ProblemError with the code of the refusal: 413 when too large, else 422. */
export async function describeApk(path: string): Promise<ApkInfo> {
  try {
    const info = await parseApk(path)
    return {
      ...info,
      versionName: plain(info.versionName),
      label: plain(info.label) || info.packageName,
      permissions: info.permissions.map(plain).filter((permission) => permission !== ''),
    }
  } catch (error) {
    if (!(error instanceof ApkError)) throw error
    const { code, message: detail } = error
    throw new ProblemError({ status: code === 'apk_too_large' ? 413 : 422, code, detail, cause: error })
  }
}

/** An APK's words are a stranger's: without control characters (PostgreSQL refuses NUL) and lone surrogates. */
function plain(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/\p{Cc}+/gu, ' ')
    .trim()
}

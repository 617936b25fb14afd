import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'

const PROGRAM = '/usr/bin/wrk'

export interface Load {
  readonly url: string
  readonly token: string
  readonly connections: number
  readonly seconds: number
}

export interface LoadOutcome {
  readonly perSecond: number
  readonly requests: number
  readonly p99Ms: number
}

/**
 * Keeps as many requests in flight as there are connections, by Debian's wrk.
 * @throws Error when a single answer was not a success, or wrk is missing.
 */
export async function runLoad({ url, token, connections, seconds }: Load): Promise<LoadOutcome> {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: this needs Debian's package wrk`)
  const { stdout } = await promisify(execFile)(PROGRAM, [
    ...['--threads', '1', '--connections', String(connections), '--duration', `${seconds}s`, '--latency'],
    ...['--header', `Authorization: Bearer ${token}`, url],
  ])
  const wrong = /Non-2xx[^\n]*|Socket errors[^\n]*/.exec(stdout)
  if (wrong !== null) throw new Error(`${url}: ${wrong[0]}`)
  return {
    perSecond: Number(found(stdout, /Requests\/sec:\s+([\d.]+)/)),
    requests: Number(found(stdout, /(\d+) requests in/)),
    p99Ms: inMs(found(stdout, /^ +99% +(\S+)/m)),
  }
}

function found(text: string, pattern: RegExp): string {
  const match = pattern.exec(text)?.[1]
  if (match === undefined) throw new Error(`wrk said something else:\n${text}`)
  return match
}

function inMs(text: string): number {
  const [, value, unit] = /^([\d.]+)(us|ms|s|m)$/.exec(text) ?? []
  const factors: Record<string, number> = { us: 0.001, ms: 1, s: 1_000, m: 60_000 }
  return Number(value) * (factors[unit ?? ''] ?? Number.NaN)
}

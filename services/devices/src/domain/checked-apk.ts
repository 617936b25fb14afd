import { createHash } from 'node:crypto'
import { Transform, type TransformCallback } from 'node:stream'
import { PermanentError } from '@cloudphone/saga/errors'

/**
 * Passes an APK on while it is hashed, and keeps its last part back until the hash is right: the phone's package manager
 * waits for all the bytes that were announced, so wrong ones are never installed. Nothing is kept on disk.
 */
export function checkedApk(expected: { sizeBytes: number; sha256: string }): Transform {
  const hash = createHash('sha256')
  let sizeBytes = 0
  let last: Buffer | undefined
  return new Transform({
    transform(chunk: Buffer, _encoding, done: TransformCallback) {
      hash.update(chunk)
      sizeBytes += chunk.length
      if (sizeBytes > expected.sizeBytes) return done(wrong(`it is longer than ${expected.sizeBytes} bytes`))
      const ready = last
      last = chunk
      done(null, ready)
    },
    flush(done: TransformCallback) {
      const sha256 = hash.digest('hex')
      if (sizeBytes !== expected.sizeBytes) {
        return done(new Error(`the APK ended after ${sizeBytes} of ${expected.sizeBytes} bytes`))
      }
      if (sha256 !== expected.sha256) return done(wrong(`its SHA-256 is ${sha256}, not ${expected.sha256}`))
      done(null, last)
    },
  })
}

function wrong(what: string): PermanentError {
  return new PermanentError('apk_damaged', `The APK is not the one that was uploaded: ${what}`)
}

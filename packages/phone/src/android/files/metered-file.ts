import { Writable } from 'node:stream'
import { translate } from './file-errors.ts'
import type { Space } from './space.ts'

export const CHUNK_BYTES = 256 * 1024

/** A writable over a file that reserves space first; in constant memory whatever is written. */
export function metered(
  file: Writable,
  space: Space,
  ends?: { commit: () => Promise<void>; discard: () => Promise<void> },
): Writable {
  let taken = 0
  let kept = ends === undefined
  const failed = new Promise<Error>((resolve) => file.once('error', resolve))
  return new Writable({
    highWaterMark: CHUNK_BYTES,
    write(chunk: Buffer, _encoding, done) {
      try {
        space.take(chunk.length)
        taken += chunk.length
      } catch (error) {
        done(error as Error)
        return
      }
      file.write(chunk, (error) => done(error ? translate(error) : null))
    },
    final(done) {
      const ended = new Promise<void>((resolve, reject) => {
        void failed.then(reject)
        file.end(resolve)
      })
      ended
        .then(() => ends?.commit())
        .then(
          () => {
            kept = true
            done()
          },
          (error: unknown) => done(translate(error)),
        )
    },
    destroy(error, done) {
      const finish = () => {
        if (kept) return done(error)
        space.give(taken)
        // Nothing to discard when the file could not even be created.
        const gone = ends === undefined ? Promise.resolve() : ends.discard().catch(() => undefined)
        void gone.then(() => done(error))
      }
      if (file.closed) return finish()
      file.once('close', finish)
      file.destroy()
    },
  })
}

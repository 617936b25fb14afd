import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'

/** A request's body on its way through: nothing of it is read before somebody asks. */
export interface PassingBody {
  /** The body as a stream. Each call gives a new one; only one of them may be read. */
  open(): Readable
  /** True from the first read on: then the body cannot be sent again. */
  isTouched(): boolean
}

/** True when the request announces a body (RFC 9112, section 6.3). */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/**
 * Passes a body on with back-pressure. The streams that are handed out stand between the service's connection and the
 * caller's: when the service answers before it has read everything (an upload that is too large), its connection is
 * destroyed together with the stream, but the caller's lives on to carry the answer, and the rest of the body is dropped.
 */
export function passBody(source: IncomingMessage): PassingBody {
  let touched = false
  return {
    isTouched: () => touched,
    open: () => {
      let attached = false
      const stream: Readable = new Readable({
        read() {
          if (attached) return void source.resume()
          attached = true
          touched = true
          source.on('data', onData).once('end', onEnd).once('close', onClose).once('error', onError)
        },
        destroy(error, done) {
          source.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onError)
          if (attached) source.on('error', ignoreLate).resume()
          done(error)
        },
      })
      const onData = (chunk: Buffer): void => {
        if (!stream.push(chunk)) source.pause()
      }
      const onEnd = (): void => void stream.push(null)
      const onClose = (): void => void (source.complete || stream.destroy(new Error('the caller has gone')))
      const onError = (error: Error): void => void stream.destroy(error)
      return stream
    },
  }
}

/** The caller's connection broke while the rest of its body was dropped: there is nobody left to tell. */
function ignoreLate(): undefined {
  return undefined
}

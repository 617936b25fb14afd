import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { Clock } from '@cloudphone/observe/clock'
import { common, type ProblemError } from '@cloudphone/runtime/problem'
import { Pace, type PaceLimit } from '../domain/pace.ts'
import { problems } from '../errors.ts'

/** A request's body on its way through. */
export interface PassingBody {
  /** The body, whole or as a stream. Each call gives a new one; only one stream may be read. */
  open(): Readable | Buffer
  /** True when something was taken from a stream: then the body cannot be sent again. */
  isTouched(): boolean
}

/** Takes bodies as they come, none faster than it is read and none slower than its pace. */
export interface BodyIntake {
  /**
   * A small body whole, so that it can be sent twice and no service waits for a slow line; any other as a stream. Undefined
   * for a request without one.
   * @throws ProblemError `body_too_large`, `body_too_slow`. A stream ends with these too.
   */
  take(request: IncomingMessage, limitBytes: number): PassingBody | Promise<PassingBody> | undefined
  close(): Promise<void>
}

const wholeBytes = 64 * 1024
const lookMs = 500

/** A body that is watched. */
interface Watched {
  readonly pace: Pace
  tooSlow(problem: ProblemError): void
}

/** Opens the intake: one timer looks after all bodies that are on their way. */
export function openBodyIntake(clock: Clock, limit: PaceLimit): BodyIntake {
  const watched = new Set<Watched>()
  const looking = setInterval(
    () => {
      const nowMs = clock.monotonicMs()
      for (const body of watched) {
        if (body.pace.isTooSlow(nowMs)) body.tooSlow(problems.body_too_slow({ ...limit }))
      }
    },
    Math.min(lookMs, limit.windowMs),
  ).unref()
  const watch = (tooSlow: Watched['tooSlow']): Watch => {
    const one = { pace: new Pace(limit), tooSlow }
    watched.add(one)
    return {
      want: () => one.pace.want(clock.monotonicMs()),
      rest: () => one.pace.rest(clock.monotonicMs()),
      came: (bytes) => one.pace.came(bytes),
      end: () => void watched.delete(one),
    }
  }
  return {
    take: (request, limitBytes) => {
      const { headers } = request
      // RFC 9112, section 6.3: these announce a body.
      const isChunked = headers['transfer-encoding'] !== undefined
      const announced = isChunked ? undefined : Number(headers['content-length'] ?? 0)
      if (announced === 0) return undefined
      if (announced !== undefined && announced > limitBytes) throw common.body_too_large({ limitBytes })
      if (announced !== undefined && announced <= wholeBytes) return readWhole(request, watch)
      return passBody(request, limitBytes, watch)
    },
    close: async () => clearInterval(looking),
  }
}

interface Watch {
  want(): void
  rest(): void
  came(bytes: number): void
  end(): void
}

type StartWatch = (tooSlow: Watched['tooSlow']) => Watch

function readWhole(source: IncomingMessage, startWatch: StartWatch): Promise<PassingBody> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const watch = startWatch(fail)
    watch.want()
    function onData(chunk: Buffer): void {
      watch.came(chunk.length)
      chunks.push(chunk)
    }
    function onEnd(): void {
      leave()
      const [first] = chunks
      const whole = chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks)
      resolve({ open: () => whole, isTouched: () => false })
    }
    function onClose(): void {
      fail(new Error('the caller has gone'))
    }
    function fail(error: Error): void {
      leave()
      source.on('error', ignoreLate)
      reject(error)
    }
    function leave(): void {
      watch.end()
      source.off('data', onData).off('end', onEnd).off('close', onClose).off('error', fail)
    }
    source.on('data', onData).once('end', onEnd).once('close', onClose).once('error', fail)
  })
}

/**
 * Passes a body on with back-pressure. The streams that are handed out stand between the service's connection and the
 * caller's: when the service answers before it has read everything (an upload that is too large), its connection is
 * destroyed together with the stream, but the caller's lives on to carry the answer, and the rest of the body is dropped.
 */
function passBody(source: IncomingMessage, limitBytes: number, startWatch: StartWatch): PassingBody {
  let touched = false
  return {
    isTouched: () => touched,
    open: () => {
      let watch: Watch | undefined
      let received = 0
      const stream: Readable = new Readable({
        read() {
          if (watch === undefined) {
            touched = true
            watch = startWatch((problem) => stream.destroy(problem))
            source.on('data', onData).once('end', onEnd).once('close', onClose).once('error', onError)
          } else source.resume()
          watch.want()
        },
        destroy(error, done) {
          source.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onError)
          if (watch !== undefined) source.on('error', ignoreLate).resume()
          watch?.end()
          done(error)
        },
      })
      const onData = (chunk: Buffer): void => {
        received += chunk.length
        watch?.came(chunk.length)
        if (received > limitBytes) stream.destroy(common.body_too_large({ limitBytes }))
        else if (!stream.push(chunk)) {
          source.pause()
          watch?.rest()
        }
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

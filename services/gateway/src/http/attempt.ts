import type { IncomingHttpHeaders } from 'node:http'
import type { Span } from '@cloudphone/observe/trace'
import type { Dispatcher } from 'undici'
import type { Outcome } from '../domain/balancer.ts'
import { isFailing } from '../domain/retry.ts'

/** Hears an answer as it comes: `head` once, then `data`, then `end`; or `fail`, at any time, as the last. */
export interface Receiver {
  head(status: number, headers: IncomingHttpHeaders): void
  /** False: no more before `resume`. */
  data(chunk: Buffer): boolean
  end(): void
  /** A ProblemError before the head, any error after it. */
  fail(error: Error): void
}

/** Who sends, and decides what comes after an attempt. */
export interface Sender {
  readonly receiver: Receiver
  note(address: string, outcome: Outcome): void
  /** The instance is done with this request. */
  release(address: string): void
  /** True when a bad answer is better forgotten: another instance is asked instead. */
  asksElsewhere(address: string, status: number): boolean
  /** An attempt ended without an answer. */
  failed(address: string, error: Error): void
}

/** One sending of a request to one instance. */
export class Attempt implements Dispatcher.DispatchHandler {
  readonly #sender: Sender
  readonly #address: string
  readonly #span: Span | undefined
  #controller: Dispatcher.DispatchController | undefined
  #stage: 'asked' | 'answering' | 'forgotten' = 'asked'
  #abortedBy: Error | undefined

  constructor(sender: Sender, address: string, span: Span | undefined) {
    this.#sender = sender
    this.#address = address
    this.#span = span
  }

  resume(): void {
    this.#controller?.resume()
  }

  abort(reason: Error): void {
    this.#abortedBy = reason
    this.#controller?.abort(reason)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#abortedBy !== undefined) controller.abort(this.#abortedBy)
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    // Hints of what will come (RFC 9110, section 15.2) stay here.
    if (status < 200) return
    this.#endSpan(status)
    if (isFailing(status)) {
      if (this.#sender.asksElsewhere(this.#address, status)) {
        this.#stage = 'forgotten'
        return
      }
    } else this.#sender.note(this.#address, 'served')
    this.#stage = 'answering'
    this.#sender.receiver.head(status, headers)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#stage === 'answering' && !this.#sender.receiver.data(chunk)) controller.pause()
  }

  onResponseEnd(): void {
    this.#sender.release(this.#address)
    if (this.#stage === 'answering') this.#sender.receiver.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#sender.release(this.#address)
    if (this.#stage === 'forgotten') return
    if (this.#stage === 'answering') {
      if (this.#abortedBy === undefined) this.#sender.note(this.#address, 'unreachable')
      return void this.#sender.receiver.fail(error)
    }
    this.#span?.fail(error)
    this.#span?.end()
    if (this.#abortedBy === undefined) this.#sender.failed(this.#address, error)
  }

  #endSpan(status: number): void {
    const span = this.#span
    if (span === undefined) return
    span.note({ 'http.response.status_code': status })
    if (status >= 400) span.fail(`HTTP ${status}`, String(status))
    span.end()
  }
}

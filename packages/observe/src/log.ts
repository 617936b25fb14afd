import { type DestinationStream, type Logger as PinoLogger, pino } from 'pino'
import pretty from 'pino-pretty'
import { currentTraceparent } from './trace.ts'

/** A pino logger. Lines are an event name and ids: `log.info({ event: 'device.started', deviceId })`; no sentences. */
export type Logger = PinoLogger

export interface LogOptions {
  readonly level: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent'
  /** `pretty` for a terminal, `json` for a collector. */
  readonly format: 'pretty' | 'json'
  /** Where lines go; standard error when absent, so that standard output stays for answers. */
  readonly destination?: DestinationStream
}

/**
 * Opens the process's logger. Secrets are struck out by name wherever they stand in a line; a line that belongs to a trace
 * names it, by the field names of OpenTelemetry.
 */
export function openLog(options: LogOptions): Logger {
  const destination = options.destination ?? pino.destination({ fd: 2, sync: true })
  const stream =
    options.format === 'pretty'
      ? pretty({ destination, colorize: false, sync: true, ignore: 'pid,hostname,span_id' })
      : destination
  return pino(
    {
      level: options.level,
      mixin: traceOfLine,
      redact: {
        paths: [
          'password',
          '*.password',
          'token',
          '*.token',
          'authorization',
          '*.authorization',
          'refreshToken',
          '*.refreshToken',
          'apiKey',
          '*.apiKey',
        ],
        censor: '[redacted]',
      },
    },
    stream,
  )
}

/** @see https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/ */
function traceOfLine(): { trace_id?: string; span_id?: string } {
  const traceparent = currentTraceparent()
  if (traceparent === undefined) return {}
  return { trace_id: traceparent.slice(3, 35), span_id: traceparent.slice(36, 52) }
}

/** A logger that keeps quiet: for tests and for commands that speak through their own output. */
export function silentLog(): Logger {
  return pino({ level: 'silent' })
}

import { type DestinationStream, type Logger as PinoLogger, pino } from 'pino'
import pretty from 'pino-pretty'

/** A pino logger. Lines are an event name and ids: `log.info({ event: 'device.started', deviceId })`; no sentences. */
export type Logger = PinoLogger

export interface LogOptions {
  readonly level: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent'
  /** `pretty` for a terminal, `json` for a collector. */
  readonly format: 'pretty' | 'json'
  /** Where lines go; standard error when absent, so that standard output stays for answers. */
  readonly destination?: DestinationStream
}

/** Opens the process's logger. Secrets are struck out by name wherever they stand in a line. */
export function openLog(options: LogOptions): Logger {
  const destination = options.destination ?? pino.destination({ fd: 2, sync: true })
  const stream =
    options.format === 'pretty'
      ? pretty({ destination, colorize: false, sync: true, ignore: 'pid,hostname' })
      : destination
  return pino(
    {
      level: options.level,
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

/** A logger that keeps quiet: for tests and for commands that speak through their own output. */
export function silentLog(): Logger {
  return pino({ level: 'silent' })
}

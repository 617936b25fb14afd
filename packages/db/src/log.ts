type LogLine = (fields: Record<string, unknown>, event: string) => void

/** The part of a pino logger that the database package uses: an event's name and its fields. */
export interface Log {
  debug: LogLine
  info: LogLine
  warn: LogLine
  error: LogLine
}

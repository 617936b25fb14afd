import type { z } from 'zod'

/** A wrong setting: says which, what it was and what is allowed, in one line. */
export class SettingError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'SettingError'
  }
}

/** Settings as they come: the environment, or what flags and tests make of it. */
export type Env = Readonly<Record<string, string | undefined>>

/**
 * Reads a service's settings from the environment: the schema is an object whose keys are the variables' names. An empty
 * variable counts as absent.
 * @throws SettingError naming the first wrong variable.
 */
export function readSettings<Schema extends z.ZodObject>(schema: Schema, env: Env): z.output<Schema> {
  const names = Object.keys(schema.shape)
  const given = Object.fromEntries(
    names.filter((name) => (env[name] ?? '') !== '').map((name) => [name, env[name]]),
  )
  const result = schema.safeParse(given)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const name = String(issue?.path[0] ?? '')
  const shown = isSecret(name) ? name : `${name}=${given[name] ?? ''}`
  throw new SettingError(`Setting ${shown} is wrong: ${issue?.message ?? 'not allowed'}`)
}

/** What may be, or hold, a password stays out of logs and terminals, even when it is wrong. */
function isSecret(name: string): boolean {
  return /PASSWORD|SECRET|TOKEN|KEY|URL|PROVIDERS/.test(name)
}

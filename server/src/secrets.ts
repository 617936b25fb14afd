import { randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import type { Env } from '@cloudphone/runtime/config'
import { z } from 'zod'
import type { Settings } from './settings.ts'

const Credentials = z.object({ email: z.string(), password: z.string() })
export type Credentials = z.infer<typeof Credentials>

/** What the first start made up, and every later one finds again. */
export interface Secrets {
  readonly admin: Credentials
  /** True at the one start that made the admin's password up: the only time it is shown. */
  readonly adminIsNew: boolean
  /** Shared by all processes of one platform; signs the services' tokens to each other. */
  readonly serviceSecret: string
}

/**
 * Reads the secrets of a data directory and makes up those that are missing, each in a file of mode 0600. Settings win
 * over files, and a password that was given as a setting is never written down.
 */
export async function readSecrets(settings: Settings): Promise<Secrets> {
  // Open to pass through, since PostgreSQL's account must; what is secret in it is closed by itself.
  await mkdir(settings.dataDir, { recursive: true, mode: 0o755 })
  const credentialsPath = join(settings.dataDir, 'credentials.json')
  const { email, password } = settings.admin
  const kept = await readJson(credentialsPath, Credentials)
  const serviceSecret =
    settings.serviceSecret ?? (await keptSecret(join(settings.dataDir, 'service-secret.json')))
  if (password !== undefined) {
    return {
      admin: { email: email ?? kept?.email ?? defaultEmail, password },
      adminIsNew: false,
      serviceSecret,
    }
  }
  if (kept !== undefined)
    return { admin: { ...kept, ...(email !== undefined && { email }) }, adminIsNew: false, serviceSecret }
  const admin = { email: email ?? defaultEmail, password: randomBytes(18).toString('base64url') }
  await writeSecret(credentialsPath, admin)
  return { admin, adminIsNew: true, serviceSecret }
}

/** The environment as services read it: with the account that the first start has made, or was given. */
export function serviceEnv(settings: Settings, { admin }: Secrets): Env {
  return {
    MAIL_FOLDER: join(settings.dataDir, 'mail'),
    ...settings.env,
    CLOUDPHONE_ADMIN_EMAIL: admin.email,
    CLOUDPHONE_ADMIN_PASSWORD: admin.password,
  }
}

const defaultEmail = 'admin@cloudphone.local'

async function keptSecret(path: string): Promise<string> {
  const kept = await readJson(path, z.object({ secret: z.string().min(32) }))
  if (kept !== undefined) return kept.secret
  const secret = randomBytes(32).toString('base64url')
  await writeSecret(path, { secret })
  return secret
}

async function readJson<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
): Promise<z.output<Schema> | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  try {
    return schema.parse(JSON.parse(text))
  } catch (error) {
    throw new Error(`${path} cannot be read; mend it or move it away`, { cause: error })
  }
}

/** Written beside and renamed, so that a crash leaves the old file or the new one. */
async function writeSecret(path: string, value: unknown): Promise<void> {
  const draft = `${path}.${randomBytes(4).toString('hex')}`
  const handle = await open(draft, 'wx', 0o600)
  try {
    await handle.writeFile(`${JSON.stringify(value, null, 2)}\n`)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(draft, path)
}

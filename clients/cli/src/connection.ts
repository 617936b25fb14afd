import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type Client, type Credentials, openClient } from '@cloudphone/sdk/client'
import { z } from 'zod'
import { type SessionStore, sessionStore } from './session-store.ts'

/** What the flags of every command say. */
export interface GlobalFlags {
  readonly url?: string
  readonly apiKey?: string
  readonly dataDir?: string
  readonly json?: true
}

/** A client, where it leads, and where sessions are kept. */
export interface Connection {
  readonly client: Client
  readonly url: string
  readonly sessions: SessionStore
}

/**
 * Finds the platform and proves who we are. The URL: `--url`, `CLOUDPHONE_URL`, the platform that runs on the data
 * directory, else the default port here. The proof: an API key, the session of `cloudphone login`, the admin's account
 * from the environment, or the one in the data directory's credentials.json.
 */
export async function connect(flags: GlobalFlags, env: NodeJS.ProcessEnv = process.env): Promise<Connection> {
  const dataDir = resolve(flags.dataDir ?? env.CLOUDPHONE_DATA_DIR ?? '.cloudphone')
  const url = (
    flags.url ??
    env.CLOUDPHONE_URL ??
    (await runningUrl(dataDir)) ??
    'http://127.0.0.1:30000'
  ).replace(/\/+$/, '')
  const sessions = sessionStore(env)
  const credentials = await credentialsFor({ url, flags, env, dataDir, sessions })
  const client = openClient({
    url,
    ...(credentials && { credentials }),
    ...(credentials?.kind === 'session' && { onTokens: (tokens) => sessions.write(url, tokens) }),
  })
  return { client, url, sessions }
}

async function credentialsFor(options: {
  url: string
  flags: GlobalFlags
  env: NodeJS.ProcessEnv
  dataDir: string
  sessions: SessionStore
}): Promise<Credentials | undefined> {
  const { url, flags, env, dataDir, sessions } = options
  const key = flags.apiKey ?? env.CLOUDPHONE_API_KEY
  if (key !== undefined && key !== '') return { kind: 'api-key', key }
  const tokens = await sessions.read(url)
  if (tokens !== undefined) return { kind: 'session', tokens }
  const { CLOUDPHONE_ADMIN_EMAIL: email, CLOUDPHONE_ADMIN_PASSWORD: password } = env
  if (email && password) return { kind: 'password', email, password }
  const kept = await readJson(
    join(dataDir, 'credentials.json'),
    z.object({ email: z.string(), password: z.string() }),
  )
  return kept && { kind: 'password', ...kept }
}

async function runningUrl(dataDir: string): Promise<string | undefined> {
  return (await readJson(join(dataDir, 'server.json'), z.object({ url: z.string() })))?.url
}

async function readJson<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
): Promise<z.output<Schema> | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'EACCES'))
      return undefined
    throw new Error(`${path} cannot be read`, { cause: error })
  }
}

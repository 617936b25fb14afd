import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { z } from 'zod'

const Stored = z.record(z.string(), z.object({ accessToken: z.string(), refreshToken: z.string() }))
type Tokens = z.infer<typeof Stored>[string]

/** Keeps the sessions of `cloudphone login`, one per URL, in a file that only its owner may read. */
export interface SessionStore {
  read(url: string): Promise<Tokens | undefined>
  write(url: string, tokens: Tokens): Promise<void>
  remove(url: string): Promise<void>
}

/** The store in `$XDG_CONFIG_HOME/cloudphone/sessions.json`, or below `~/.config`. */
export function sessionStore(env: NodeJS.ProcessEnv): SessionStore {
  const path = join(env.XDG_CONFIG_HOME ?? join(homedir(), '.config'), 'cloudphone', 'sessions.json')
  const readAll = async (): Promise<z.infer<typeof Stored>> => {
    try {
      return Stored.parse(JSON.parse(await readFile(path, 'utf8')))
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return {}
      throw new Error(`${path} cannot be read; mend it or remove it`, { cause: error })
    }
  }
  const writeAll = async (sessions: z.infer<typeof Stored>): Promise<void> => {
    if (Object.keys(sessions).length === 0) return rm(path, { force: true })
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
    await writeFile(`${path}.${process.pid}`, `${JSON.stringify(sessions, null, 2)}\n`, { mode: 0o600 })
    await rename(`${path}.${process.pid}`, path)
  }
  return {
    read: async (url) => (await readAll())[url],
    write: async (url, { accessToken, refreshToken }) =>
      writeAll({ ...(await readAll()), [url]: { accessToken, refreshToken } }),
    remove: async (url) => {
      const { [url]: _gone, ...kept } = await readAll()
      await writeAll(kept)
    },
  }
}

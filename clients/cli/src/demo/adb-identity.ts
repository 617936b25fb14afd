import { createPrivateKey } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { type AdbKeyPair, fromPrivateKey, generateAdbKey } from '@cloudphone/adb-client/adb-key'

/** The adb key that the demo uses, and what must stand before `adb` so that the real one uses it too. */
export interface AdbIdentity {
  readonly keys: AdbKeyPair
  readonly prefix: string
}

/** The user's own key when adb has made one; else a key of the demo's, kept beside the data, so that the user's home stays as it is. */
export async function adbIdentity(dataDir: string): Promise<AdbIdentity> {
  const own = await readPem(join(homedir(), '.android', 'adbkey'))
  if (own !== undefined) return { keys: fromPrivateKey(createPrivateKey(own), 'user'), prefix: '' }
  const path = join(dataDir, 'demo-adbkey')
  const kept = await readPem(path)
  if (kept !== undefined)
    return { keys: fromPrivateKey(createPrivateKey(kept), 'demo'), prefix: `ADB_VENDOR_KEYS=${path} ` }
  const keys = await generateAdbKey('demo')
  const key = createPrivateKey({ key: Buffer.from(keys.privateKey, 'base64'), format: 'der', type: 'pkcs8' })
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  await writeFile(path, key.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
  return { keys, prefix: `ADB_VENDOR_KEYS=${path} ` }
}

async function readPem(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'EACCES'))
      return undefined
    throw error
  }
}

import { createHash, randomBytes } from 'node:crypto'
import { createConnection } from 'node:net'
import { Readable } from 'node:stream'
import { type AdbSession, connectAdb } from '@cloudphone/adb-client/adb-client'
import type { AdbKeyPair } from '@cloudphone/adb-client/adb-key'
import type { Device } from '@cloudphone/contracts/api/devices-api'

/** Connects to a phone by adb. */
export async function adbTo(device: Device, keys: AdbKeyPair): Promise<AdbSession> {
  if (device.adbHost === null || device.adbPort === null)
    throw new Error(`phone ${device.id} has no adb port`)
  return await connectAdb({ host: device.adbHost, port: device.adbPort, keys: [keys] })
}

/** Sends `sizeBytes` random bytes to the phone and fetches them back; answers both checksums. */
export async function pushAndPull(session: AdbSession, sizeBytes: number) {
  const content = randomBytes(sizeBytes)
  await session.push(Readable.from([content], { objectMode: false }), '/sdcard/big.bin')
  const got = createHash('sha256')
  let pulledBytes = 0
  for await (const part of session.pull('/sdcard/big.bin')) {
    got.update(part)
    pulledBytes += part.length
  }
  return { sent: createHash('sha256').update(content).digest('hex'), got: got.digest('hex'), pulledBytes }
}

/** Resolves when the other side has ended the session. */
export async function cutOff(session: AdbSession): Promise<void> {
  await session.adb.disconnected
}

/** Whether somebody listens there. */
export function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const knock = createConnection({ host: '127.0.0.1', port })
    knock.once('connect', () => {
      knock.destroy()
      resolve(true)
    })
    knock.once('error', () => resolve(false))
  })
}

/* A real adb client over TCP for tests: Tango's `@yume-chan/adb` with a key of our own. */
import { generateKeyPairSync, privateEncrypt } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import {
  Adb,
  AdbDaemonTransport,
  AdbPacket,
  AdbPacketSerializeStream,
  adbGeneratePublicKey,
} from '@yume-chan/adb'
import {
  Consumable,
  pipeFrom,
  ReadableStream,
  StructDeserializeStream,
  type WritableStream,
} from '@yume-chan/stream-extra'

export interface TestKey {
  /** PKCS #8. */
  readonly privateKey: Uint8Array
  /** As `adbkey.pub` holds it. */
  readonly publicKey: string
}

export function newKey(): TestKey {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const der = new Uint8Array(privateKey.export({ type: 'pkcs8', format: 'der' }))
  return {
    privateKey: der,
    publicKey: `${Buffer.from(adbGeneratePublicKey(der)).toString('base64')} me@test`,
  }
}

/** What adb does: RSA_sign(NID_sha1, token), that is PKCS#1 type 1 padding over DigestInfo and token. */
export function signToken(privateKey: Uint8Array, token: Buffer): Buffer {
  const key = { key: Buffer.from(privateKey), format: 'der', type: 'pkcs8' } as const
  return privateEncrypt(key, Buffer.concat([Buffer.from('3021300906052b0e03021a05000414', 'hex'), token]))
}

/** Connects and authenticates. Rejects when the daemon ends the connection before it has accepted a key. */
export async function connectAdb(port: number, keys: readonly TestKey[]): Promise<Adb> {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  await once(socket, 'connect')
  const transport = await AdbDaemonTransport.authenticate({
    serial: `127.0.0.1:${port}`,
    connection: {
      readable: readableOf(socket).pipeThrough(new StructDeserializeStream(AdbPacket)),
      writable: pipeFrom(writableOf(socket), new AdbPacketSerializeStream()),
    },
    credentialStore: {
      generateKey: () => {
        throw new Error('the test brings its keys')
      },
      iterateKeys: () => keys.map((key) => ({ buffer: key.privateKey, name: 'me@test' })),
    },
  })
  return new Adb(transport)
}

function readableOf(socket: Socket): ReadableStream<Uint8Array> {
  let cancelled = false
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        socket.on('data', (chunk) => {
          controller.enqueue(new Uint8Array(chunk))
          if ((controller.desiredSize ?? 0) <= 0) socket.pause()
        })
        socket.on('error', () => socket.destroy())
        socket.once('close', () => {
          if (!cancelled) controller.close()
        })
      },
      pull: () => void socket.resume(),
      cancel: () => {
        cancelled = true
        socket.destroy()
      },
    },
    { highWaterMark: 16 },
  )
}

function writableOf(socket: Socket): WritableStream<Consumable<Uint8Array>> {
  return new Consumable.WritableStream<Uint8Array>({
    async write(chunk) {
      // The header's buffer is used again for the next packet, so it cannot be kept until it is sent.
      if (!socket.write(Buffer.from(chunk)) && !socket.destroyed) {
        await Promise.race([once(socket, 'drain'), once(socket, 'close')])
      }
    },
    close: () => void socket.destroy(),
    abort: () => void socket.destroy(),
  })
}

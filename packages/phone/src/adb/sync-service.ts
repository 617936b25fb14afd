import { constants } from 'node:os'
import { type PhoneFs, PhoneFsError, type PhoneStat } from '../android/android.ts'
import { ByteReader, EndOfStream } from './byte-reader.ts'
import { type AdbStream, drained, writeOrGone } from './stream.ts'
import {
  entryFrame,
  entryFrame2,
  failFrame,
  frameHeader,
  type Looked,
  MAX_DATA_BYTES,
  reason,
  type SyncSession,
  statFrame,
  statFrame2,
} from './sync-frames.ts'
import { receiveFile } from './sync-receive.ts'

/* The file sync service, as Android's SYNC.TXT and file_sync_protocol.h describe it. A request is a four-letter id,
 * a length (little endian) and that many bytes of path; numbers are little endian throughout.
 */
const MAX_PATH_BYTES = 1024
/** Serves one `sync:` stream until QUIT, the end of the stream or a request that breaks the protocol. Never rejects. */
export async function serveSync(
  stream: AdbStream,
  deps: { fs: PhoneFs; log: (event: string, fields: Record<string, unknown>) => void },
): Promise<void> {
  const session: SyncSession = { fs: deps.fs, stream, reader: new ByteReader(stream) }
  try {
    while (await serveRequest(session));
  } catch (error) {
    const hungUp = error instanceof EndOfStream || stream.destroyed
    if (!hungUp) deps.log('adb.sync_failed', { error: String(error) })
  }
  stream.end()
}

/** False when the session is over. */
async function serveRequest(session: SyncSession): Promise<boolean> {
  const header = await session.reader.exactly(8)
  const id = header.toString('latin1', 0, 4)
  if (id === 'QUIT') return false
  const pathBytes = header.readUInt32LE(4)
  if (pathBytes > MAX_PATH_BYTES) {
    session.stream.write(failFrame('path too long'))
    return false
  }
  const path = (await session.reader.exactly(pathBytes)).toString('utf8')
  const handler = HANDLERS.get(id)
  if (handler === undefined) {
    session.stream.write(failFrame(`unknown command ${JSON.stringify(id)}`))
    return false
  }
  return await handler(session, path)
}

type Handler = (session: SyncSession, path: string) => Promise<boolean>

const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ['STAT', async ({ fs, stream }, path) => answer(stream, statFrame(await lookUp(() => fs.lstat(path))))],
  [
    'LST2',
    async ({ fs, stream }, path) => answer(stream, statFrame2('LST2', await lookUp(() => fs.lstat(path)))),
  ],
  [
    'STA2',
    async ({ fs, stream }, path) => answer(stream, statFrame2('STA2', await lookUp(() => fs.stat(path)))),
  ],
  ['LIST', async (session, path) => await list(session, path, entryFrame)],
  ['LIS2', async (session, path) => await list(session, path, entryFrame2)],
  ['RECV', async (session, path) => await sendFile(session, path)],
  ['RCV2', receive2],
  ['SEND', send1],
  ['SND2', send2],
])

async function answer(stream: AdbStream, frame: Buffer): Promise<boolean> {
  return await writeOrGone(stream, frame)
}

async function lookUp(look: () => Promise<PhoneStat | undefined>): Promise<Looked> {
  try {
    const stat = await look()
    return stat === undefined ? { errno: constants.errno.ENOENT } : { errno: 0, stat }
  } catch (error) {
    if (error instanceof PhoneFsError) return { errno: constants.errno[error.code] }
    throw error
  }
}

/** Like Android, answers an unreadable directory with an empty list. */
async function list(
  { fs, stream }: SyncSession,
  path: string,
  frameOf: (name: Buffer, stat: PhoneStat | undefined) => Buffer,
): Promise<boolean> {
  const entries = await fs.list(path).catch((error: unknown) => {
    if (error instanceof PhoneFsError) return []
    throw error
  })
  for (const entry of entries) {
    const name = Buffer.from(entry.name)
    if (!(await writeOrGone(stream, Buffer.concat([frameOf(name, entry), name])))) return false
  }
  return await writeOrGone(stream, frameOf(Buffer.alloc(0), undefined))
}

async function receive2(session: SyncSession, path: string): Promise<boolean> {
  const setup = await session.reader.exactly(8)
  if (setup.toString('latin1', 0, 4) !== 'RCV2' || setup.readUInt32LE(4) !== 0) {
    session.stream.write(failFrame('unsupported receive flags'))
    return false
  }
  return await sendFile(session, path)
}

/** RECV: the file in DATA frames, then DONE. Chunks of the file go to the socket without a copy. */
async function sendFile({ fs, stream }: SyncSession, path: string): Promise<boolean> {
  let opened = false
  try {
    const file = await fs.read(path)
    opened = true
    const stop = (): void => void file.destroy()
    stream.once('close', stop)
    try {
      for await (const chunk of file as AsyncIterable<Buffer>) {
        // What the chunk before left gathered goes out now; the last one goes together with DONE.
        stream.uncork()
        if (stream.writableNeedDrain) await drained(stream)
        if (stream.destroyed) return false
        stream.cork()
        for (let at = 0; at < chunk.length; at += MAX_DATA_BYTES) {
          const data = chunk.subarray(at, at + MAX_DATA_BYTES)
          stream.write(frameHeader('DATA', data.length))
          stream.write(data)
        }
      }
      stream.write(frameHeader('DONE', 0))
    } finally {
      stream.off('close', stop)
      stream.uncork()
    }
  } catch (error) {
    if (stream.destroyed) return false
    return await writeOrGone(stream, failFrame(`${opened ? 'read' : 'open'} failed: ${reason(error)}`))
  }
  return !stream.destroyed
}

async function send1(session: SyncSession, path: string): Promise<boolean> {
  const comma = path.lastIndexOf(',')
  const mode = Number(path.slice(comma + 1))
  if (comma < 0 || !Number.isInteger(mode)) {
    session.stream.write(failFrame('missing , in ID_SEND_V1'))
    return false
  }
  return await receiveFile(session, path.slice(0, comma), { mode, flags: 0 })
}

async function send2(session: SyncSession, path: string): Promise<boolean> {
  const setup = await session.reader.exactly(12)
  if (setup.toString('latin1', 0, 4) !== 'SND2') return false
  return await receiveFile(session, path, { mode: setup.readUInt32LE(4), flags: setup.readUInt32LE(8) })
}

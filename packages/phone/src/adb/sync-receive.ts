import type { Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { EndOfStream } from './byte-reader.ts'
import { drained, writeOrGone } from './stream.ts'
import { failFrame, frameHeader, MAX_DATA_BYTES, reason, type SyncSession } from './sync-frames.ts'

const S_IFMT = 0o170000
const S_IFLNK = 0o120000

/**
 * Takes the DATA frames of a SEND and writes the file as they come, in constant memory. A failure is told at once; what
 * the client still sends is then read and dropped up to its DONE, since a client that only writes would never see it.
 * False when the session is over.
 */
export async function receiveFile(
  session: SyncSession,
  path: string,
  { mode, flags }: { mode: number; flags: number },
): Promise<boolean> {
  // The time of the file comes after its bytes, so the options get it while the file is being written.
  const options: { mode: number; mtime?: number } = { mode: mode & 0o777 }
  let file: Writable | undefined
  let failed = false
  const fail = (error: unknown): void => {
    if (failed) return
    failed = true
    file?.destroy()
    session.stream.write(failFrame(`couldn't create file: ${reason(error)}`))
  }
  try {
    file = await openFile(session, path, { mode, flags, options })
    file.on('error', fail)
  } catch (error) {
    fail(error)
  }
  try {
    const mtime = await eachFrame(session, async (data) => {
      if (!failed && file !== undefined) await writeChunk(file, data)
    })
    if (mtime === undefined) fail(new Error('unexpected sync frame'))
    if (mtime === undefined || file === undefined || failed) return mtime !== undefined
    options.mtime = mtime
    file.end()
    await finished(file)
  } catch (error) {
    // The client went away half-way: nothing of the file may stay.
    if (error instanceof EndOfStream || session.stream.destroyed) {
      failed = true
      file?.destroy()
      return false
    }
    fail(error)
    return true
  }
  return await writeOrGone(session.stream, frameHeader('OKAY', 0))
}

async function openFile(
  session: SyncSession,
  path: string,
  request: { mode: number; flags: number; options: { mode: number; mtime?: number } },
): Promise<Writable> {
  if (request.flags !== 0) throw new Error('unsupported send flags')
  if ((request.mode & S_IFMT) === S_IFLNK) throw new Error('Operation not supported')
  return await session.fs.write(path, request.options)
}

/**
 * Hands each piece of each DATA frame to `take`. Gives the file's time (seconds since the epoch) when DONE comes,
 * undefined when something comes that does not belong here.
 */
async function eachFrame(
  session: SyncSession,
  take: (data: Buffer) => Promise<void>,
): Promise<number | undefined> {
  for (;;) {
    const header = await session.reader.exactly(8)
    const id = header.toString('latin1', 0, 4)
    const value = header.readUInt32LE(4)
    if (id === 'DONE') return value
    if (id !== 'DATA' || value > MAX_DATA_BYTES) return undefined
    for (let left = value; left > 0; ) {
      const data = await session.reader.some(left)
      left -= data.length
      await take(data)
    }
  }
}

/** Writes and waits for room, or for the end of the file, which its `error` event explains. */
async function writeChunk(file: Writable, data: Buffer): Promise<void> {
  if (file.destroyed || file.write(data)) return
  await drained(file)
}

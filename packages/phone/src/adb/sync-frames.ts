import type { PhoneFs, PhoneStat } from '../android/android.ts'
import type { ByteReader } from './byte-reader.ts'
import type { AdbStream } from './stream.ts'

/** SYNC_DATA_MAX: neither side may put more into one DATA frame. */
export const MAX_DATA_BYTES = 64 * 1024
const EMPTY_STAT: PhoneStat = { mode: 0, size: 0, mtime: 0 }

/** One sync session: what its handlers share. */
export interface SyncSession {
  readonly fs: PhoneFs
  readonly stream: AdbStream
  readonly reader: ByteReader
}

/** What a lookup found. `errno` is Linux' number, 0 for found. */
export interface Looked {
  readonly errno: number
  readonly stat?: PhoneStat
}

/** Answer to STAT; all zero when nothing is there. */
export function statFrame({ stat }: Looked): Buffer {
  const frame = Buffer.alloc(16)
  frame.write('STAT', 0, 'latin1')
  writeStat(frame, 4, stat ?? EMPTY_STAT)
  return frame
}

/** mode, size, mtime with 32 bits each: all that the first version has room for. */
function writeStat(frame: Buffer, at: number, stat: PhoneStat): void {
  frame.writeUInt32LE(stat.mode >>> 0, at)
  frame.writeUInt32LE(stat.size % 2 ** 32, at + 4)
  frame.writeUInt32LE(Math.trunc(stat.mtime) >>> 0, at + 8)
}

/** Answer to LST2 and STA2; `tailBytes` more for what a directory entry adds. */
export function statFrame2(id: string, looked: Looked, tailBytes = 0): Buffer {
  const { errno, stat = EMPTY_STAT } = looked
  const frame = Buffer.alloc(72 + tailBytes)
  const time = BigInt(Math.trunc(stat.mtime))
  frame.write(id, 0, 'latin1')
  frame.writeUInt32LE(errno, 4)
  // dev, ino, uid and gid stay 0: a simulated phone has none that would mean something outside.
  frame.writeUInt32LE(stat.mode >>> 0, 24)
  frame.writeUInt32LE(errno === 0 ? 1 : 0, 28)
  frame.writeBigUInt64LE(BigInt(stat.size), 40)
  for (const at of [48, 56, 64]) frame.writeBigInt64LE(time, at)
  return frame
}

/** A DENT of a listing, without its name; no stat makes the DONE at its end. */
export function entryFrame(name: Buffer, stat: PhoneStat | undefined): Buffer {
  const frame = Buffer.alloc(20)
  frame.write(stat === undefined ? 'DONE' : 'DENT', 0, 'latin1')
  writeStat(frame, 4, stat ?? EMPTY_STAT)
  frame.writeUInt32LE(name.length, 16)
  return frame
}

/** The same for LIS2. */
export function entryFrame2(name: Buffer, stat: PhoneStat | undefined): Buffer {
  const frame = statFrame2(stat === undefined ? 'DONE' : 'DNT2', { errno: 0, stat: stat ?? EMPTY_STAT }, 4)
  frame.writeUInt32LE(name.length, 72)
  return frame
}

/** Id and a number: DATA with its length, DONE, OKAY. */
export function frameHeader(id: string, value: number): Buffer {
  const frame = Buffer.allocUnsafe(8)
  frame.write(id, 0, 'latin1')
  frame.writeUInt32LE(value, 4)
  return frame
}

/** FAIL with the text that the client shows. */
export function failFrame(message: string): Buffer {
  const text = Buffer.from(message)
  return Buffer.concat([frameHeader('FAIL', text.length), text])
}

/** What went wrong with a file, in Android's words when the file system said so. */
export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

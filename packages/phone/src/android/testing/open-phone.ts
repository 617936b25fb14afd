import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import type { AndroidSystem, PhoneProfile, ShellIo } from '../android.ts'
import { openAndroid } from '../system.ts'

export const PROFILE: PhoneProfile = {
  id: 'phone-1',
  name: 'Test phone',
  width: 360,
  height: 640,
  dpi: 160,
  androidVersion: '11',
  model: 'Cloudphone One',
  cpuCores: 2,
  memoryMb: 2048,
  storageMb: 64,
  bootMs: 1,
}

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
  readonly bytes: Buffer
}

/** A booted phone in a directory of its own, and the means to run commands on it. */
export class TestPhone {
  readonly android: AndroidSystem
  readonly dir: string
  readonly power: string[]

  constructor(android: AndroidSystem, dir: string, power: string[]) {
    this.android = android
    this.dir = dir
    this.power = power
  }

  async run(
    line: string,
    stdin: Readable = Readable.from([]),
    signal = new AbortController().signal,
  ): Promise<Ran> {
    const { io, out, err } = pipes({ stdin, signal, pty: false })
    const collected = Promise.all([buffer(out), buffer(err)])
    const code = await this.android.run(line, io)
    out.end()
    err.end()
    const [bytes, errors] = await collected
    return { code, bytes, out: bytes.toString(), err: errors.toString() }
  }

  /** Standard output of a command that must succeed. */
  async out(line: string): Promise<string> {
    const { code, out, err } = await this.run(line)
    if (code !== 0) throw new Error(`${line} -> ${code}: ${out}${err}`)
    return out.trimEnd()
  }

  async close(): Promise<void> {
    await this.android.close()
    await rm(this.dir, { recursive: true, force: true })
  }
}

export function pipes(options: { stdin: Readable; signal: AbortSignal; pty: boolean }): {
  io: ShellIo
  out: PassThrough
  err: PassThrough
} {
  const out = new PassThrough()
  const err = new PassThrough()
  return { io: { ...options, stdout: out, stderr: err }, out, err }
}

/** Opens and boots; `dir` reuses the directory of an earlier one. */
export async function openPhone(
  options: { profile?: Partial<PhoneProfile>; dir?: string; now?: () => Date } = {},
) {
  const dir = options.dir ?? (await mkdtemp(join(tmpdir(), 'phone-')))
  const power: string[] = []
  const android = await openAndroid({
    profile: { ...PROFILE, ...options.profile },
    dir,
    power: (action) => power.push(action),
    now: options.now ?? (() => new Date('2026-03-14T10:09:00Z')),
  })
  await android.boot(new AbortController().signal)
  return new TestPhone(android, dir, power)
}

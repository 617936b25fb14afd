import { PassThrough, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import type { AndroidSystem } from '../android/android.ts'
import { type AdbStream, drained, gatherWrites, writeOrGone } from './stream.ts'

/** Packet ids of the shell protocol (shell_protocol.h): one byte of id, four of length (little endian), data. */
const ShellId = { STDIN: 0, STDOUT: 1, STDERR: 2, EXIT: 3, CLOSE_STDIN: 4, WINDOW_SIZE: 5 } as const
const SHELL_HEADER_BYTES = 5

/**
 * How long a command may go on after its client closed the stream, or took its last input after that. Its pipes break
 * at once and its input ends; the signal comes this much later, so that `adb exec-in "cat > f"`, which closes right
 * after the last byte, does not lose its tail.
 */
const HANGUP_GRACE_MS = 2000

export interface ShellRequest {
  readonly command: string
  /** True: stdin, stdout, stderr and exit code travel in packets (`shell_v2`); false: raw bytes, both outputs mixed. */
  readonly framed: boolean
  readonly pty: boolean
}

/** Reads `shell:…`, `shell,v2,TERM=xterm,raw:…` and `exec:…`. Undefined for any other service. */
export function parseShellService(service: string): ShellRequest | undefined {
  const colon = service.indexOf(':')
  if (colon < 0) return undefined
  const [name, ...options] = service.slice(0, colon).split(',')
  const command = service.slice(colon + 1)
  if (name === 'exec') return { command, framed: false, pty: false }
  if (name !== 'shell') return undefined
  const pty = options.includes('pty') || (command === '' && !options.includes('raw'))
  return { command, framed: options.includes('v2'), pty }
}

/** Runs one command of the phone over an adb stream, until it ends or the client has gone. Never rejects. */
export async function serveShell(
  request: ShellRequest,
  stream: AdbStream,
  deps: { android: AndroidSystem; log: (event: string, fields: Record<string, unknown>) => void },
): Promise<void> {
  const gone = new AbortController()
  let grace: NodeJS.Timeout | undefined
  const stdin = new PassThrough({
    transform: (chunk, _encoding, done) => {
      grace?.refresh()
      done(null, chunk)
    },
  })
  const stdout = outputTo(stream, request.framed ? ShellId.STDOUT : undefined)
  const stderr = outputTo(stream, request.framed ? ShellId.STDERR : undefined)
  // A broken pipe at once, the end of the command a little later.
  const breakPipes = (): void => {
    stdout.destroy()
    stderr.destroy()
  }
  stream.once('hangup', () => {
    breakPipes()
    grace = setTimeout(() => stream.destroy(), HANGUP_GRACE_MS)
  })
  stream.once('close', () => {
    breakPipes()
    stdin.destroy()
    gone.abort(new Error('adb client has gone'))
  })
  if (request.framed) void readFrames(stream, stdin).catch(() => stdin.end())
  else stream.pipe(stdin)
  let code = 255
  try {
    code = await deps.android.run(request.command, {
      stdin,
      stdout,
      stderr,
      pty: request.pty,
      signal: gone.signal,
    })
    stdout.end()
    stderr.end()
    await Promise.all([finished(stdout), finished(stderr)])
  } catch (error) {
    const expected = grace !== undefined || stream.destroyed
    if (!expected) deps.log('adb.command_failed', { command: request.command, error: String(error) })
  }
  clearTimeout(grace)
  if (grace !== undefined || stream.destroyed) {
    stream.destroy()
    return
  }
  if (request.framed) stream.write(frame(ShellId.EXIT, Buffer.from([code & 0xff])))
  stream.end()
}

function frame(id: number, data: Buffer): Buffer {
  const packet = Buffer.allocUnsafe(SHELL_HEADER_BYTES + data.length)
  packet[0] = id
  packet.writeUInt32LE(data.length, 1)
  data.copy(packet, SHELL_HEADER_BYTES)
  return packet
}

/** An output of a command. Waits for room on the stream; destroyed, which a command sees as a broken pipe, when nobody reads. */
function outputTo(stream: AdbStream, id: number | undefined): Writable {
  const output = new Writable({
    write(chunk: Buffer, _encoding, done) {
      const data = id === undefined ? chunk : frame(id, chunk)
      if (stream.destroyed || stream.writableEnded) {
        done()
        return
      }
      gatherWrites(stream)
      if (stream.write(data)) done()
      else void drained(stream).then(() => done())
    },
  })
  // A write that comes too late is no failure of the phone.
  output.on('error', (error) => stream.destroy(error))
  return output
}

/** Takes the shell protocol's packets from the client and feeds stdin, however the packets are cut into WRTEs. */
async function readFrames(stream: AdbStream, stdin: PassThrough): Promise<void> {
  const header = Buffer.alloc(SHELL_HEADER_BYTES)
  let filled = 0
  let left = 0
  for await (const chunk of stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    let at = 0
    while (at < chunk.length) {
      if (left === 0) {
        const taken = Math.min(SHELL_HEADER_BYTES - filled, chunk.length - at)
        chunk.copy(header, filled, at, at + taken)
        filled += taken
        at += taken
        if (filled < SHELL_HEADER_BYTES) continue
        filled = 0
        left = header.readUInt32LE(1)
        if (header[0] === ShellId.CLOSE_STDIN) stdin.end()
        continue
      }
      const data = chunk.subarray(at, at + left)
      at += data.length
      left -= data.length
      // Window sizes and unknown packets are skipped, as Android does.
      if (header[0] === ShellId.STDIN) await writeOrGone(stdin, data)
    }
  }
  stdin.end()
}

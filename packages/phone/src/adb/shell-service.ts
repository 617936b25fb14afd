import { PassThrough, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import type { AndroidSystem } from '../android/android.ts'
import { type AdbStream, writeOrGone } from './stream.ts'

/** Packet ids of the shell protocol (shell_protocol.h): one byte of id, four of length (little endian), data. */
const ShellId = { STDIN: 0, STDOUT: 1, STDERR: 2, EXIT: 3, CLOSE_STDIN: 4, WINDOW_SIZE: 5 } as const
const SHELL_HEADER_BYTES = 5

/**
 * How long a command may go on after its client closed the stream. Its input ends at once; the signal comes this
 * much later, so that `adb exec-in "cat > f"`, which closes right after the last byte, does not lose its tail.
 */
const HANGUP_GRACE_MS = 500

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
  stream.once('hangup', () => {
    grace = setTimeout(() => stream.destroy(), HANGUP_GRACE_MS)
  })
  stream.once('close', () => gone.abort(new Error('adb client has gone')))
  const stdin = new PassThrough()
  if (request.framed) void readFrames(stream, stdin).catch(() => stdin.end())
  else stream.pipe(stdin)
  gone.signal.addEventListener('abort', () => stdin.destroy(), { once: true })
  const stdout = outputTo(stream, gone.signal, request.framed ? ShellId.STDOUT : undefined)
  const stderr = outputTo(stream, gone.signal, request.framed ? ShellId.STDERR : undefined)
  const io = { stdin, stdout, stderr, pty: request.pty, signal: gone.signal }
  let code = 255
  try {
    code = await deps.android.run(request.command, io)
    stdout.end()
    stderr.end()
    await Promise.all([finished(stdout), finished(stderr)])
  } catch (error) {
    if (!gone.signal.aborted)
      deps.log('adb.command_failed', { command: request.command, error: String(error) })
  }
  clearTimeout(grace)
  if (request.framed && !stream.destroyed) stream.write(frame(ShellId.EXIT, Buffer.from([code & 0xff])))
  if (grace === undefined) stream.end()
  else stream.destroy()
}

function frame(id: number, data: Buffer): Buffer {
  const packet = Buffer.allocUnsafe(SHELL_HEADER_BYTES + data.length)
  packet[0] = id
  packet.writeUInt32LE(data.length, 1)
  data.copy(packet, SHELL_HEADER_BYTES)
  return packet
}

/**
 * An output of a command. It never fails: once the client has gone, writes wait until the command is told so by its
 * signal, and are dropped then. An endless `yes` so stands still instead of spinning.
 */
function outputTo(stream: AdbStream, gone: AbortSignal, id: number | undefined): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (gone.aborted) {
        done()
        return
      }
      const data = id === undefined ? chunk : frame(id, chunk)
      void writeOrGone(stream, data).then(() => done())
    },
  })
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

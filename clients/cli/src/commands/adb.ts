import { createServer, type Socket } from 'node:net'
import { GetDevice, ListAdbKeys } from '@cloudphone/contracts/api/devices-api'
import { DeviceId } from '@cloudphone/contracts/id'
import { AdbTunnel, mustLeaveCode } from '@cloudphone/contracts/sockets'
import type { Client } from '@cloudphone/sdk/client'
import type { Command } from 'commander'
import { createWebSocketStream, WebSocket } from 'ws'
import { argument, command } from '../command.ts'
import type { Output } from '../output.ts'

/** adb: one's own adb on a phone, wherever the phone is. */
export function addAdbCommand(program: Command): void {
  command<{ port: string }>(program, 'adb', 'open a port here that leads to the adb port of a phone', {
    configure: (c) =>
      c.argument('<device-id>').option('--port <port>', 'of 127.0.0.1 (default: a free one)', '0'),
    example: 'adb 0190... --port 40001',
    run: async ({ client, args, flags, out }) => {
      const deviceId = DeviceId.parse(argument(args, 0))
      const device = await client.call(GetDevice, { params: { deviceId } })
      if (device.status !== 'RUNNING') throw new Error(`${device.name} is ${device.status}, not RUNNING`)
      const keys = await client.call(ListAdbKeys, { query: { limit: 1 } })
      if (keys.items.length === 0) {
        out.note('Your adb is not known yet: register its key with "cloudphone adb-key add".')
      }
      await serve(client, deviceId, { port: Number(flags.port), out })
    },
  })
}

/** Listens until it is interrupted; each connection of adb gets a tunnel of its own. */
async function serve(
  client: Client,
  deviceId: DeviceId,
  { port, out }: { port: number; out: Output },
): Promise<void> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy())
    openTunnel(client, deviceId, socket, out).catch((error: unknown) => {
      out.note(`  refused: ${error instanceof Error ? error.message : String(error)}`)
      socket.destroy()
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  const address = server.address()
  const where = `127.0.0.1:${typeof address === 'object' ? address?.port : port}`
  out.answer({ deviceId, address: where }, () => `adb connect ${where}`)
  out.note('Ctrl-C closes it.')
  await new Promise((resolve) => server.once('close', resolve))
}

async function openTunnel(client: Client, deviceId: DeviceId, socket: Socket, out: Output): Promise<void> {
  // Renews a token that has expired, and says in words what is wrong.
  await client.call(GetDevice, { params: { deviceId } })
  const address = `${client.url.replace(/^http/, 'ws')}${AdbTunnel.pathFor(deviceId)}`
  const line = new WebSocket(address, {
    headers: { authorization: `Bearer ${await client.accessToken()}` },
    perMessageDeflate: false,
  })
  const tunnel = createWebSocketStream(line)
  tunnel.on('error', (error) => {
    out.note(`  the tunnel broke: ${error.message}`)
    socket.destroy()
  })
  line.on('close', (code, reason) => {
    if (code === mustLeaveCode) out.note(`  closed by the platform: ${String(reason)}`)
    socket.destroy()
  })
  socket.on('close', () => line.close())
  socket.pipe(tunnel)
  tunnel.pipe(socket)
}

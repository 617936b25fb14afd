import { readFile, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import * as api from '@cloudphone/contracts/api/devices-api'
import { DeviceId } from '@cloudphone/contracts/id'
import type { Command } from 'commander'
import type { z } from 'zod'
import { argument, command, type Run } from '../command.ts'
import { sagaToCompletion } from '../follow.ts'
import { facts, table } from '../output.ts'
import { addPhoneCommands } from './phone.ts'

interface CreateFlags {
  cpu?: string
  memory?: string
  storage?: string
  resolution?: string
  dpi?: string
  android?: string
  pool?: true
  wait: boolean
}

/** devices and adb-key. */
export function addDeviceCommands(program: Command): void {
  const devices = program.command('devices').description('phones')
  addCreate(devices)
  command(devices, 'list', 'list phones', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(api.ListDevices)), (rows) =>
        table(rows, [
          { title: 'ID', of: (one) => one.id },
          { title: 'NAME', of: (one) => one.name, cut: true },
          { title: 'STATUS', of: (one) => one.status },
          { title: 'ADB', of: (one) => adbOf(one) },
          { title: 'KIND', of: (one) => (one.userId === null ? 'pooled' : 'dedicated') },
        ]),
      )
    },
  })
  command(devices, 'show', 'show a phone', {
    configure: (c) => c.argument('<device-id>'),
    run: async ({ client, args, out }) => {
      out.answer(await client.call(api.GetDevice, { params: { deviceId: idOf(args) } }), describe)
    },
  })
  addVerb(devices, 'start', 'start a phone', api.StartDevice)
  addVerb(devices, 'stop', 'stop a phone; its data stays', api.StopDevice)
  addVerb(devices, 'reset', 'erase all that users left on a phone, as new', api.ResetDevice)
  addVerb(devices, 'delete', 'delete a phone and all it holds', api.DeleteDevice)
  command(devices, 'screenshot', 'save what a phone shows as a PNG', {
    configure: (c) => c.argument('<device-id>').argument('[file]', 'where to', 'screenshot.png'),
    run: async ({ client, args, out }) => {
      const file = args[1] ?? 'screenshot.png'
      const png = await client.bytes(api.Screenshot, { params: { deviceId: idOf(args) } })
      await writeFile(file, png)
      out.answer({ file, sizeBytes: png.length }, () => file)
    },
  })
  addPhoneCommands(devices)
  addKeys(program)
}

function addCreate(devices: Command): void {
  command<CreateFlags>(devices, 'create', 'create a phone and wait until it runs', {
    configure: (c) =>
      c
        .argument('<name>')
        .option('--cpu <cores>', '1 to 16 (default 2)')
        .option('--memory <MB>', '512 to 65536 (default 4096)')
        .option('--storage <MB>', 'size of /data (default 10240)')
        .option('--resolution <WxH>', 'default 1920x1080')
        .option('--dpi <dpi>', 'default 240')
        .option('--android <version>', '11 to 15 (default 11)')
        .option('--pool', 'for the pool: given out by allocations (operators)')
        .option('--no-wait', 'do not wait until it runs'),
    run: async ({ client, args, flags, out }) => {
      const { sagaId, device } = await client.call(api.CreateDevice, {
        body: bodyOf(argument(args, 0), flags),
      })
      if (flags.wait) {
        out.note(`${sagaId}`)
        await sagaToCompletion(client, sagaId, out)
      }
      const now = await client.call(api.GetDevice, { params: { deviceId: device.id } })
      out.answer({ sagaId, device: now }, (made) => describe(made.device))
    },
  })
}

type CreateBody = z.input<(typeof api.CreateDevice)['body']>

/** The request as the flags say it; whether the values are allowed is the platform's to say. */

function bodyOf(name: string, flags: CreateFlags): CreateBody {
  return {
    name,
    ...(flags.cpu !== undefined && { cpuCores: Number(flags.cpu) }),
    ...(flags.memory !== undefined && { memoryMB: Number(flags.memory) }),
    ...(flags.storage !== undefined && { storageMB: Number(flags.storage) }),
    ...(flags.resolution !== undefined && { resolution: flags.resolution }),
    ...(flags.dpi !== undefined && { dpi: Number(flags.dpi) }),
    ...(flags.android !== undefined && {
      androidVersion: flags.android as Exclude<CreateBody['androidVersion'], undefined>,
    }),
    ...(flags.pool && { userId: null }),
  }
}

function addVerb(
  devices: Command,
  name: string,
  description: string,
  route: typeof api.StartDevice | typeof api.DeleteDevice,
): void {
  command<{ wait: boolean }>(devices, name, description, {
    configure: (c) => c.argument('<device-id>').option('--no-wait', 'do not wait for the end'),
    run: async ({ client, args, flags, out }: Run<{ wait: boolean }>) => {
      const { sagaId, device } = await client.call(route, { params: { deviceId: idOf(args) } })
      if (flags.wait) await sagaToCompletion(client, sagaId, out)
      out.answer({ sagaId, deviceId: device.id }, () => `${name}: ${flags.wait ? 'done' : sagaId}`)
    },
  })
}

function addKeys(program: Command): void {
  const keys = program.command('adb-key').description('adb keys that one’s phones accept')
  command(keys, 'add', 'register a public key (default: ~/.android/adbkey.pub)', {
    configure: (c) => c.argument('[file]'),
    run: async ({ client, args, out }) => {
      const file = args[0] ?? join(homedir(), '.android', 'adbkey.pub')
      const publicKey = (await readFile(file, 'utf8')).trim()
      out.answer(
        await client.call(api.AddAdbKey, { body: { publicKey } }),
        (key) => `${key.fingerprint} ${key.label}`,
      )
    },
  })
  command(keys, 'list', 'list keys', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(api.ListAdbKeys)), (rows) =>
        table(rows, [
          { title: 'ID', of: (key) => key.id },
          { title: 'FINGERPRINT', of: (key) => key.fingerprint },
          { title: 'LABEL', of: (key) => key.label, cut: true },
        ]),
      )
    },
  })
  command(keys, 'delete', 'remove a key; connections that use it are cut', {
    configure: (c) => c.argument('<adb-key-id>'),
    run: async ({ client, args, out }) => {
      const adbKeyId = argument(args, 0)
      await client.call(api.DeleteAdbKey, { params: { adbKeyId } })
      out.answer({ adbKeyId }, () => 'Removed')
    },
  })
}

function idOf(args: readonly string[]): DeviceId {
  return DeviceId.parse(argument(args, 0))
}

function adbOf(device: api.Device): string | null {
  return device.adbPort === null ? null : `${device.adbHost ?? '127.0.0.1'}:${device.adbPort}`
}

function describe(device: api.Device): string {
  return facts([
    ['id', device.id],
    ['name', device.name],
    ['status', device.status],
    ['adb', adbOf(device)],
    ['screen', `${device.resolution} at ${device.dpi} dpi`],
    ['Android', device.androidVersion],
    ['size', `${device.cpuCores} cores, ${device.memoryMB} MB, ${device.storageMB} MB /data`],
    ['owner', device.userId ?? 'the pool'],
    ['held under', device.allocationId],
    ...(device.userId === null ? [['on it', device.hygiene] as const] : []),
    ['last error', device.lastError],
  ])
}

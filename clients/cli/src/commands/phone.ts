import { createWriteStream, openAsBlob } from 'node:fs'
import { rename, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import * as api from '@cloudphone/contracts/api/device-operations-api'
import { DeviceId } from '@cloudphone/contracts/id'
import type { Client } from '@cloudphone/sdk/client'
import type { Command } from 'commander'
import { argument, command } from '../command.ts'
import { table } from '../output.ts'

/** What one does on a phone: `devices shell`, `logcat`, `push`, `pull`, `ls`, `tap`, `apps` and their like. */
export function addPhoneCommands(devices: Command): void {
  addShell(devices)
  addFiles(devices)
  addInput(devices)
  addApps(devices)
}

function addShell(devices: Command): void {
  command<{ timeout?: string }>(devices, 'shell', 'run a program on a phone; its exit code becomes ours', {
    configure: (c) =>
      c
        .argument('<device-id>')
        .argument('<argv...>', 'the program and its arguments, after --')
        .option('--timeout <seconds>', 'after which it is killed, 1 to 600 (default 60)'),
    example: 'devices shell 0190... -- ls -l /sdcard',
    run: async ({ client, args, flags, out }) => {
      const [, ...argv] = args
      const timeout = flags.timeout === undefined ? {} : { timeoutSeconds: Number(flags.timeout) }
      const lines = linesOf(
        await client.stream(api.RunShell, { params: byId(args), body: { argv, ...timeout } }),
      )
      const whole = { stdout: '', stderr: '', exitCode: -1 }
      for await (const line of lines) {
        const said = api.ShellLine.parse(JSON.parse(line))
        if ('error' in said) throw new Error(`${said.error.detail} (${said.error.code})`)
        if ('exitCode' in said) whole.exitCode = said.exitCode
        for (const name of ['stdout', 'stderr'] as const) {
          const bytes = name in said ? Buffer.from(String(said[name as keyof typeof said]), 'base64') : null
          if (bytes === null) continue
          if (out.json) whole[name] += bytes.toString()
          else process[name].write(bytes)
        }
      }
      if (out.json) out.answer(whole, () => '')
      process.exitCode = whole.exitCode
    },
  })
  command<{ follow?: true; lines: string }>(devices, 'logcat', 'show the log of a phone', {
    configure: (c) =>
      c
        .argument('<device-id>')
        .argument('[filters...]', 'TAG:PRIORITY, such as MyApp:D *:S')
        .option('-f, --follow', 'go on with what comes')
        .option('-n, --lines <count>', 'of what is there', '200'),
    example: 'devices logcat 0190... --follow MyApp:D "*:S"',
    run: async ({ client, args, flags }) => {
      const [, ...filters] = args
      const query = { lines: flags.lines, follow: String(flags.follow === true), filter: filters.join(' ') }
      const log = await client.stream(api.ReadLog, { params: byId(args), query })
      for await (const part of log) process.stdout.write(part)
    },
  })
}

function addFiles(devices: Command): void {
  command(devices, 'ls', 'list a folder of a phone', {
    configure: (c) => c.argument('<device-id>').argument('[path]', 'a folder', '/sdcard'),
    run: async ({ client, args, out }) => {
      const query = { path: args[1] ?? '/sdcard' }
      const files = await Array.fromAsync(client.each(api.ListPhoneFiles, { params: byId(args), query }))
      out.answer(files, (rows) =>
        table(rows, [
          { title: 'KIND', of: (one) => one.kind },
          { title: 'BYTES', of: (one) => one.sizeBytes },
          { title: 'CHANGED', of: (one) => one.modifiedAt },
          { title: 'NAME', of: (one) => one.name },
        ]),
      )
    },
  })
  command(devices, 'push', 'put a file on a phone', {
    configure: (c) =>
      c.argument('<device-id>').argument('<file>').argument('<path>', 'where to, on the phone'),
    example: 'devices push 0190... song.mp3 /sdcard/Music/song.mp3',
    run: async ({ client, args, out }) => {
      const [file, path] = [argument(args, 1), argument(args, 2)]
      const content = await openAsBlob(file).catch((error: unknown) => {
        throw new Error(`${file} cannot be read`, { cause: error })
      })
      const done = await client.upload(
        api.PushFile,
        { name: basename(file), content },
        { params: byId(args), query: { path } },
      )
      out.answer(done, ({ sizeBytes }) => `${path}: ${sizeBytes} bytes`)
    },
  })
  command(devices, 'pull', 'fetch a file from a phone; again, it goes on where it broke off', {
    configure: (c) => c.argument('<device-id>').argument('<path>').argument('[file]', 'where to'),
    run: async ({ client, args, out }) => {
      const path = argument(args, 1)
      const file = args[2] ?? basename(path)
      const sizeBytes = await pull(client, byId(args), { path, file })
      out.answer({ path, file, sizeBytes }, () => `${file}: ${sizeBytes} bytes`)
    },
  })
}

/** Beside its place first: half a file never looks like a whole one. */
async function pull(
  client: Client,
  params: { deviceId: DeviceId },
  { path, file }: { path: string; file: string },
): Promise<number> {
  const part = `${file}.part`
  const offset = await stat(part).then(
    ({ size }) => size,
    () => 0,
  )
  const bytes = await client.stream(api.PullFile, { params, query: { path, offset: String(offset) } })
  await pipeline(Readable.fromWeb(bytes as never), createWriteStream(part, { flags: 'a' }))
  await rename(part, file)
  return (await stat(file)).size
}

function addInput(devices: Command): void {
  const add = (
    name: string,
    { description, names }: { description: string; names: readonly string[] },
    inputOf: (values: readonly string[]) => api.PhoneInput,
  ): void => {
    command(devices, name, description, {
      configure: (c) => names.reduce((made, one) => made.argument(`<${one}>`), c.argument('<device-id>')),
      run: async ({ client, args, out }) => {
        const input = inputOf(args.slice(1))
        await client.call(api.SendInput, { params: byId(args), body: { input } })
        out.answer(input, () => 'done')
      },
    })
  }
  add('tap', { description: 'tap a phone’s screen', names: ['x', 'y'] }, ([x, y]) => ({
    ...{ kind: 'tap', x: Number(x), y: Number(y) },
  }))
  add(
    'swipe',
    { description: 'swipe over a phone’s screen', names: ['from-x', 'from-y', 'to-x', 'to-y'] },
    ([fromX, fromY, toX, toY]) => ({
      ...{ kind: 'swipe', fromX: Number(fromX), fromY: Number(fromY), toX: Number(toX), toY: Number(toY) },
      durationMs: 300,
    }),
  )
  add('type', { description: 'type a text on a phone', names: ['text'] }, ([text = '']) => ({
    ...{ kind: 'text', text },
  }))
  add('key', { description: 'press a key: HOME, BACK, ENTER, 66', names: ['key'] }, ([key = '']) => ({
    ...{ kind: 'key', key },
  }))
}

function addApps(devices: Command): void {
  command(devices, 'apps', 'list what is installed on a phone', {
    configure: (c) => c.argument('<device-id>'),
    run: async ({ client, args, out }) => {
      const apps = await Array.fromAsync(client.each(api.ListPhoneApps, { params: byId(args) }))
      out.answer(apps, (rows) =>
        table(rows, [
          { title: 'PACKAGE', of: (one) => one.packageName },
          { title: 'VERSION', of: (one) => one.versionCode },
          { title: 'KIND', of: (one) => (one.isSystem ? 'of Android' : 'added') },
        ]),
      )
    },
  })
  const add = (
    name: string,
    description: string,
    route: typeof api.StartPhoneApp | typeof api.RemovePhoneApp,
  ): void => {
    command(devices, name, description, {
      configure: (c) => c.argument('<device-id>').argument('<package>'),
      run: async ({ client, args, out }) => {
        const packageName = argument(args, 1)
        await client.call(route, { params: { ...byId(args), packageName } })
        out.answer({ packageName }, () => 'done')
      },
    })
  }
  add('open-app', 'open an app on a phone', api.StartPhoneApp)
  add('close-app', 'stop an app on a phone', api.StopPhoneApp)
  add('remove-app', 'uninstall an app from a phone, with its data', api.RemovePhoneApp)
}

function byId(args: readonly string[]): { deviceId: DeviceId } {
  return { deviceId: DeviceId.parse(argument(args, 0)) }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const part of stream) {
    text += decoder.decode(part, { stream: true })
    const lines = text.split('\n')
    text = lines.pop() ?? ''
    yield* lines
  }
}

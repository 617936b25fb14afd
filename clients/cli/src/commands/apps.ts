import { openAsBlob } from 'node:fs'
import { basename } from 'node:path'
import * as api from '@cloudphone/contracts/api/apps-api'
import { AppId, DeviceId } from '@cloudphone/contracts/id'
import type { Command } from 'commander'
import { argument, command } from '../command.ts'
import { facts, table } from '../output.ts'

/** The file as it will be sent; Node's own error does not name it. */
async function contentOf(file: string): Promise<Blob> {
  try {
    return await openAsBlob(file)
  } catch (error) {
    throw new Error(`${file} cannot be read`, { cause: error })
  }
}

/** apps and installations. */
export function addAppCommands(program: Command): void {
  const apps = program.command('apps').description('apps of the tenant')
  command(apps, 'upload', 'upload an APK', {
    configure: (c) => c.argument('<file>'),
    run: async ({ client, args, out }) => {
      const file = argument(args, 0)
      const app = await client.upload(api.UploadApp, {
        name: basename(file),
        content: await contentOf(file),
      })
      out.answer(app, describe)
    },
  })
  command(apps, 'list', 'list apps', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(api.ListApps)), (rows) =>
        table(rows, [
          { title: 'ID', of: (app) => app.id },
          { title: 'PACKAGE', of: (app) => app.packageName },
          { title: 'VERSION', of: (app) => app.versionName },
          { title: 'LABEL', of: (app) => app.label, cut: true },
        ]),
      )
    },
  })
  command(apps, 'show', 'show an app', {
    configure: (c) => c.argument('<app-id>'),
    run: async ({ client, args, out }) => {
      out.answer(
        await client.call(api.GetApp, { params: { appId: AppId.parse(argument(args, 0)) } }),
        describe,
      )
    },
  })
  command(apps, 'install', 'install an app on a phone and wait for it', {
    configure: (c) => c.argument('<app-id>').argument('<device-id>'),
    run: async ({ client, args, out }) => {
      const params = { appId: AppId.parse(argument(args, 0)) }
      const body = { deviceId: DeviceId.parse(argument(args, 1)) }
      let now = await client.call(api.InstallApp, { params, body })
      while (now.endedAt === null) {
        out.note(`  ${now.status} ...`)
        const { installationId } = now
        now = await client.call(api.GetInstallation, { params: { installationId }, query: { wait: 30 } })
      }
      out.answer(now, (done) => (done.status === 'installed' ? 'installed' : `failed: ${done.reason ?? ''}`))
      if (now.status === 'failed') process.exitCode = 1
    },
  })
  command(apps, 'delete', 'delete an app; phones that have it keep it', {
    configure: (c) => c.argument('<app-id>'),
    run: async ({ client, args, out }) => {
      const appId = AppId.parse(argument(args, 0))
      await client.call(api.DeleteApp, { params: { appId } })
      out.answer({ appId }, () => 'Deleted')
    },
  })
  command(program, 'installations', 'list installations', {
    run: async ({ client, out }) => {
      out.answer(await Array.fromAsync(client.each(api.ListInstallations)), (rows) =>
        table(rows, [
          { title: 'ID', of: (one) => one.installationId },
          { title: 'DEVICE', of: (one) => one.deviceId },
          { title: 'STATUS', of: (one) => one.status },
          { title: 'REASON', of: (one) => one.reason, cut: true },
        ]),
      )
    },
  })
}

function describe(app: api.App): string {
  return facts([
    ['id', app.id],
    ['package', app.packageName],
    ['version', `${app.versionName} (${app.versionCode})`],
    ['label', app.label],
    ['size', `${app.sizeBytes} bytes`],
    ['SDK', `${app.minSdk ?? '?'} to ${app.targetSdk ?? '?'}`],
    ['permissions', app.permissions.length],
    ['SHA-256', app.sha256],
  ])
}

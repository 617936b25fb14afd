import { openAsBlob } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { GetInstallation, InstallApp, UploadApp } from '@cloudphone/contracts/api/apps-api'
import { CreateDevice } from '@cloudphone/contracts/api/devices-api'
import { Doctor, GetSaga } from '@cloudphone/contracts/api/platform-api'
import type { AppId, DeviceId, InstallationId } from '@cloudphone/contracts/id'
import type { Client } from '@cloudphone/sdk/client'
import type { Figure } from '../harness/figure.ts'
import type { Suite, Task } from '../harness/program.ts'
import { median, openLoop, percentile, timed, Underway } from '../harness/samples.ts'
import { PlatformProcess } from '../platform-process.ts'

const bootMs = 3000
const homes = 3
/** One user drives all phones: limits stay on, out of the way. */
const settings = {
  GATEWAY_LIMIT_PER_SECOND: '100000',
  GATEWAY_LIMIT_PER_10_SECONDS: '1000000',
  GATEWAY_LIMIT_PER_MINUTE: '1000000',
  USERS_DEFAULT_MAX_DEVICES: '10000',
  USERS_DEFAULT_MAX_CPU: '100000',
  USERS_DEFAULT_MAX_MEMORY: '100000000',
  USERS_DEFAULT_MAX_STORAGE: '1000000000',
  DEVICES_SIM_BOOT_MS: String(bootMs),
}

/** What a user of the platform waits for, through the gateway, on processes as `npm start` makes them. */
export const journey: Suite = {
  summary: 'start-up, and what a user waits for from POST /api/devices to an installed app',
  options: {
    phones: { default: '200', help: 'how many phones are made, 5 a second, and get an app' },
  },
  run: async (task) => {
    const starts = await measureStarts(task)
    await using platform = await PlatformProcess.prepare(settings)
    await platform.start()
    const { client } = platform
    const phones = await measureCreation(client, task)
    const figures = [
      ...starts,
      ...phones.figures,
      ...(await measureDoctor(client, phones.ids.length, task)),
      ...(await measureInstalls(client, phones.ids, task)),
    ]
    return { figures, facts: { PostgreSQL: await platform.postgresFacts() } }
  },
}

async function measureStarts({ progress }: Task): Promise<Figure[]> {
  const [first, later]: [number[], number[]] = [[], []]
  for (let home = 1; home <= homes; home += 1) {
    await using platform = await PlatformProcess.prepare(settings)
    first.push(await platform.start())
    await platform.stop()
    later.push(await platform.start())
    progress(`start ${home}/${homes}: ${ms(first.at(-1))} on an empty directory, ${ms(later.at(-1))} later`)
  }
  return [
    {
      name: 'npm start to ready, empty directory, median of 3 (ms)',
      ours: median(first),
      wanted: { is: '<', than: 10_000 },
    },
    {
      name: 'npm start to ready, later, median of 3 (ms)',
      ours: median(later),
      wanted: { is: '<', than: 3_000 },
    },
  ]
}

async function measureCreation(client: Client, task: Task): Promise<{ figures: Figure[]; ids: DeviceId[] }> {
  const count = task.number('phones')
  const perSecond = 5
  // Connections, prepared statements and compiled code are there before anything is measured.
  await createRunning(client, 'warm-up')
  task.progress(`${count} phones, ${perSecond} a second ...`)
  const running = new Underway<number>()
  const accepted = await openLoop({
    count,
    perSecond,
    send: async (index) => {
      const startedMs = performance.now()
      const { sagaId, device } = await client.call(CreateDevice, { body: { name: `bench-${index}` } })
      running.add(endOf(client, sagaId).then(() => performance.now() - startedMs))
      return device.id
    },
  })
  const untilRunning = await running.all()
  const answers = accepted.map((one) => one.ms)
  return {
    ids: accepted.map((one) => one.value),
    figures: [
      { name: 'POST /api/devices accepted, p50 (ms)', ours: median(answers) },
      {
        name: `POST /api/devices accepted, p99 of ${count} at ${perSecond}/s (ms)`,
        ours: percentile(answers, 0.99),
        wanted: { is: '<', than: 50 },
      },
      { name: `POST /api/devices to RUNNING, boot of ${bootMs} ms, p50 (ms)`, ours: median(untilRunning) },
      {
        name: `POST /api/devices to RUNNING, boot of ${bootMs} ms, p99 (ms)`,
        ours: percentile(untilRunning, 0.99),
      },
    ],
  }
}

async function createRunning(client: Client, name: string): Promise<void> {
  const { sagaId } = await client.call(CreateDevice, { body: { name } })
  await endOf(client, sagaId)
}

async function endOf(client: Client, sagaId: string): Promise<void> {
  for (;;) {
    const saga = await client.call(GetSaga, { params: { sagaId }, query: { wait: 60 } })
    if (saga.status === 'COMPLETED') return
    if (saga.endedAt !== null) throw new Error(`${sagaId} ended ${saga.status}: ${saga.errorMessage}`)
  }
}

async function measureDoctor(client: Client, phones: number, { progress }: Task): Promise<Figure[]> {
  const times: number[] = []
  for (let round = 0; round < 10; round += 1) {
    const { ms: took, value } = await timed(() => client.call(Doctor))
    times.push(took)
    const broken = value.reports.filter((one) => !one.holds)
    if (broken.length > 0)
      throw new Error(`the doctor complains: ${broken.map((one) => `${one.name}: ${one.figure}`).join('; ')}`)
  }
  progress(`doctor: ${ms(median(times))}`)
  return [{ name: `cloudphone doctor with ${phones + 1} phones, median of 10 (ms)`, ours: median(times) }]
}

async function measureInstalls(
  client: Client,
  ids: readonly DeviceId[],
  { progress }: Task,
): Promise<Figure[]> {
  const file = await sampleApk()
  const content = await openAsBlob(file)
  const upload = await timed(() => client.upload(UploadApp, { name: basename(file), content }))
  const perSecond = 2
  progress(`the app on ${ids.length} phones, ${perSecond} a second ...`)
  const installed = new Underway<number>()
  const answers = await openLoop({
    count: ids.length,
    perSecond,
    send: async (index) => {
      const startedMs = performance.now()
      const id = await requestInstall(client, upload.value.id, ids[index] as DeviceId)
      installed.add(installation(client, id).then(() => performance.now() - startedMs))
    },
  })
  const untilInstalled = await installed.all()
  const megabytes = (content.size / 1_000_000).toFixed(1)
  return [
    { name: `POST /api/apps, ${megabytes} MB uploaded and parsed (ms)`, ours: upload.ms },
    { name: 'POST /api/apps/:id/install answer, p50 (ms)', ours: median(answers.map((one) => one.ms)) },
    {
      name: `POST /api/apps/:id/install answer, p99 of ${ids.length} at ${perSecond}/s (ms)`,
      ours: percentile(
        answers.map((one) => one.ms),
        0.99,
      ),
      wanted: { is: '<', than: 100 },
    },
    { name: 'install asked to installed, p50 (ms)', ours: median(untilInstalled) },
    { name: 'install asked to installed, p99 (ms)', ours: percentile(untilInstalled, 0.99) },
  ]
}

async function requestInstall(client: Client, appId: AppId, deviceId: DeviceId): Promise<InstallationId> {
  const { installationId } = await client.call(InstallApp, { params: { appId }, body: { deviceId } })
  return installationId
}

async function installation(client: Client, installationId: InstallationId): Promise<void> {
  for (;;) {
    const now = await client.call(GetInstallation, { params: { installationId }, query: { wait: 60 } })
    if (now.status === 'installed') return
    if (now.endedAt !== null) throw new Error(`an installation failed: ${now.reason}`)
  }
}

/** A real, signed APK, which npm's io.appium.settings carries. */
async function sampleApk(): Promise<string> {
  const folder = join(dirname(fileURLToPath(import.meta.resolve('io.appium.settings/package.json'))), 'apks')
  const name = (await readdir(folder)).find((one) => one.endsWith('.apk'))
  if (name === undefined) throw new Error(`there is no APK in ${folder}`)
  return join(folder, name)
}

function ms(value: number | undefined): string {
  return value === undefined ? '?' : `${Math.round(value)} ms`
}

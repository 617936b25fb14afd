import { randomUUID } from 'node:crypto'
import { createReadStream, openAsBlob } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Role } from '@cloudphone/contracts/access'
import * as devices from '@cloudphone/contracts/api/devices-api'
import { GetSaga, type SagaView } from '@cloudphone/contracts/api/platform-api'
import { GetQuota } from '@cloudphone/contracts/api/quota-api'
import { CreateUser, type User } from '@cloudphone/contracts/api/users-api'
import { type Client, openClient } from '@cloudphone/sdk/client'
import { until } from './until.ts'

/** Somebody with an account. */
export interface Person {
  readonly user: User
  readonly email: string
  readonly password: string
  readonly client: Client
}

/** An HTTP answer as it came: for tests that look at status, headers and problem documents. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: the JSON of any route; the test says what it should be
  readonly body: any
}

export interface Question {
  readonly body?: unknown
  /** Sent as it is, with the headers given. */
  readonly raw?: NonNullable<RequestInit['body']>
  readonly headers?: Readonly<Record<string, string>>
}

/** Makes an account in the tenant of `admin`, and its client. */
export async function newPerson(admin: Client, role: Role = 'member'): Promise<Person> {
  const email = `${role}-${randomUUID().slice(0, 8)}@example.test`
  const password = randomUUID()
  const user = await admin.call(CreateUser, { body: { email, password, name: role, role } })
  const client = openClient({ url: admin.url, credentials: { kind: 'password', email, password } })
  return { user, email, password, client }
}

/** Sends a request with the client's token (or none), without the client's checks and second tries. */
export async function ask(
  door: Client | string,
  method: string,
  path: string,
  { body, raw, headers = {} }: Question = {},
): Promise<Answer> {
  const token = typeof door === 'string' ? undefined : await door.accessToken()
  const response = await fetch(`${typeof door === 'string' ? door : door.url}${path}`, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(raw !== undefined && { body: raw }),
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text === '' ? undefined : parse(text) }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // A page for people.
    return text
  }
}

/** Waits until a saga has ended, by the API's own waiting. */
export async function ended(client: Client, sagaId: string): Promise<SagaView> {
  for (;;) {
    const saga = await client.call(GetSaga, { params: { sagaId }, query: { wait: 30 } })
    if (saga.endedAt !== null) return saga
  }
}

type Wish = Partial<Parameters<typeof body>[0]>
const body = (wish: { name: string; userId: null | User['id']; resolution: string; dpi: number }) => wish

/** Creates a phone (small, so that drawing it costs little) and waits until it runs. */
export async function createPhone(client: Client, wish: Wish = {}): Promise<devices.Device> {
  const { sagaId, device } = await client.call(devices.CreateDevice, {
    body: { name: 'a phone', resolution: '360x640', dpi: 160, ...wish },
  })
  const saga = await ended(client, sagaId)
  if (saga.status !== 'COMPLETED') throw new Error(`${sagaId}: ${saga.status} ${saga.errorMessage}`)
  return await client.call(devices.GetDevice, { params: { deviceId: device.id } })
}

/** Carries one operation on a phone through to its end. */
export async function operate(
  client: Client,
  route: typeof devices.StopDevice | typeof devices.DeleteDevice,
  deviceId: devices.Device['id'],
): Promise<SagaView> {
  const { sagaId } = await client.call(route, { params: { deviceId } })
  return await ended(client, sagaId)
}

/** Waits until a pooled phone that its holder has left is wiped and up again, as the next one gets it. */
export async function wiped(client: Client, deviceId: devices.Device['id']): Promise<devices.Device> {
  return await until(`${deviceId} to be wiped`, async () => {
    const now = await client.call(devices.GetDevice, { params: { deviceId } })
    const isReady = now.allocationId === null && now.hygiene === 'clean' && now.status === 'RUNNING'
    return isReady ? now : undefined
  })
}

/** What an account uses of its quota. */
export async function quotaUsed(client: Client, userId: User['id']) {
  return (await client.call(GetQuota, { params: { userId } })).used
}

/** A real, signed APK: the one that npm's io.appium.settings carries. */
export async function realApk() {
  const directory = join(
    dirname(fileURLToPath(import.meta.resolve('io.appium.settings/package.json'))),
    'apks',
  )
  const name = (await readdir(directory)).find((one) => one.endsWith('.apk'))
  if (name === undefined) throw new Error(`there is no APK in ${directory}`)
  const path = join(directory, name)
  return {
    path,
    sizeBytes: (await stat(path)).size,
    stream: () => createReadStream(path),
    file: async () => ({ name: basename(path), content: await openAsBlob(path) }),
  }
}

/* Terminology:
 * - cast: the people of the access table, in three tenants, each with one thing of every kind
 * - founder: the first administrator of a tenant
 */
import { randomUUID } from 'node:crypto'
import { generateAdbKey } from '@cloudphone/adb-client/adb-key'
import { buildApk } from '@cloudphone/apk/testing/build-apk'
import type { Role } from '@cloudphone/contracts/access'
import * as apps from '@cloudphone/contracts/api/apps-api'
import * as devices from '@cloudphone/contracts/api/devices-api'
import { CreateInvitation } from '@cloudphone/contracts/api/identity-api'
import * as notifications from '@cloudphone/contracts/api/notifications-api'
import * as scheduler from '@cloudphone/contracts/api/scheduler-api'
import * as users from '@cloudphone/contracts/api/users-api'
import { type Client, openClient } from '@cloudphone/sdk/client'
import { createPhone, ended, newPerson, type Person } from './door.ts'
import type { TestPlatform } from './platform.ts'
import { until } from './until.ts'

/** The parameters of paths by which a person's things are named. */
export type Things = Readonly<Record<string, string>>

/** Somebody of the cast. */
export interface Player {
  readonly person: Person
  readonly things: Things
}

/** A PNG of one pixel. */
const dot = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg==',
  'base64',
)

/** A person with one thing of every kind, made while he was a member, who has the role since. */
export async function cast(platform: TestPlatform, founder: Client, role: Role): Promise<Player> {
  const person = await newPerson(founder)
  const { client, user } = person
  const phone = await createPhone(client)
  await createPhone(founder, { userId: null })
  const given = await until('a pooled phone to be given out', () =>
    client.call(scheduler.CreateAllocation, { body: { durationMinutes: 60 } }).catch(() => undefined),
  )
  await ended(client, given.sagaId)
  const icons = { 160: { path: 'res/icon.png', data: dot } }
  const packageName = `dev.example.a${randomUUID().replaceAll('-', '')}`
  const apk = await buildApk({ packageName, icons })
  const file = { name: 'a.apk', content: new Blob([Uint8Array.from(apk)]) }
  const app = await client.upload(apps.UploadApp, file)
  const [invitation, installation, apiKey, adbKey, session, notice] = await Promise.all([
    founder.call(CreateInvitation, { body: { email: `${randomUUID()}@example.test` } }),
    client.call(apps.InstallApp, { params: { appId: app.id }, body: { deviceId: phone.id } }),
    client.call(users.CreateApiKey, { body: { name: 'a key' } }),
    client.call(devices.AddAdbKey, { body: { publicKey: (await generateAdbKey('a key')).publicKey } }),
    sessionOf(platform.url, person),
    until('a notice', async () => (await client.call(notifications.ListNotifications)).items[0]),
  ])
  await until('the app to be installed', async () => {
    const params = { installationId: installation.installationId }
    return (await client.call(apps.GetInstallation, { params })).status === 'installed'
  })
  const [saga] = await platform.books.query(
    'select saga_id from devices.saga_state where user_id = $1 limit 1',
    [user.id],
  )
  await platform.books.query('update users.users set role = $1 where id = $2', [role, user.id])
  const { email, password } = person
  return {
    person: {
      ...person,
      client: openClient({ url: platform.url, credentials: { kind: 'password', email, password } }),
    },
    things: {
      ...{ userId: user.id, deviceId: phone.id, appId: app.id, installationId: installation.installationId },
      ...{ allocationId: given.allocation.id, apiKeyId: apiKey.id, adbKeyId: adbKey.id, sessionId: session },
      ...{ notificationId: notice.id, sagaId: String(saga?.saga_id), tenantId: user.tenantId },
      ...{ packageName, invitationId: invitation.id },
    },
  }
}

/** The id of one more session of a person. */
async function sessionOf(url: string, { email, password, client, user }: Person): Promise<string> {
  const anyone = openClient({ url, credentials: { kind: 'password', email, password } })
  await anyone.accessToken()
  const { items } = await client.call(users.ListSessions, { params: { userId: user.id } })
  const other = items.find(({ current }) => !current)
  if (other === undefined) throw new Error(`${email} has no second session`)
  return other.id
}

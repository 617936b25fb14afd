import { afterAll, beforeAll, expect, test } from 'vitest'
import { callerOf, openUsersRoom, type UsersRoom } from '../testing/users-room.ts'

let room: UsersRoom
beforeAll(async () => {
  room = await openUsersRoom()
})
afterAll(() => room[Symbol.asyncDispose]())

test('a tenant comes with an invitation for its first administrator, or not at all', async () => {
  const platform = callerOf(await room.account('root@example.com', 'admin'))
  const tenant = await room.tenants.create(platform, {
    ...{ slug: 'acme', name: 'Acme', adminEmail: 'boss@acme.example' },
  })
  const wanted = { slug: 'acme', name: 'Other', adminEmail: 'x@acme.example' }
  await expect(room.tenants.create(platform, wanted)).rejects.toMatchObject({ code: 'tenant_slug_taken' })
  const taken = { slug: 'other', name: 'Other', adminEmail: 'root@example.com' }
  await expect(room.tenants.create(platform, taken)).rejects.toMatchObject({ code: 'email_taken' })
  const listed = await room.tenants.list({ beforeId: undefined, limit: 10 })
  expect(listed.map(({ slug }) => slug)).toEqual(['acme', 'default'])
  const mail = (await room.post()).find(({ to }) => to === 'boss@acme.example')
  const boss = await room.invitations.accept({
    token: mail?.token ?? '',
    name: 'Boss',
    password: room.password,
  })
  expect(boss).toMatchObject({ role: 'admin', tenantId: tenant.id, isPlatform: false })
})

test('a suspended tenant locks all its accounts out, until it is activated', async () => {
  const member = await room.account('member@globex.example', 'member', 'globex')
  const { refreshToken } = await room.sessions.login({ email: member.email, password: room.password })
  const { key } = await room.apiKeys.create(callerOf(member), { name: 'robot' })
  expect(await room.tenants.suspend(member.tenantId)).toMatchObject({ status: 'suspended' })
  await room.tenants.suspend(member.tenantId)
  await expect(room.sessions.refresh(refreshToken)).rejects.toMatchObject({ status: 401 })
  await expect(room.sessions.login({ email: member.email, password: room.password })).rejects.toMatchObject({
    code: 'user_suspended',
  })
  await expect(room.apiKeys.exchange(key)).rejects.toMatchObject({ code: 'invalid_api_key' })
  const amounts = { devices: 1, cpu: 1, memory: 1, storage: 1, sessions: 0 }
  const asked = { userId: member.id, ...amounts, ttlSeconds: 60 }
  await expect(room.quotas.reserve({ ...asked, reservationId: crypto.randomUUID() })).rejects.toMatchObject({
    code: 'user_suspended',
  })
  await room.tenants.activate(member.tenantId)
  await room.sessions.login({ email: member.email, password: room.password })
  await room.apiKeys.exchange(key)
})

test('the tenant that runs the platform cannot be suspended; an unknown one is not found', async () => {
  const root = await room.account('root2@example.com', 'admin')
  await expect(room.tenants.suspend(root.tenantId)).rejects.toMatchObject({ code: 'platform_tenant' })
  expect(await room.tenants.rename(root.tenantId, 'Us')).toMatchObject({ name: 'Us', status: 'active' })
  const unknown = '0198a3c2-0000-7000-8000-00000000dead' as never
  for (const act of [room.tenants.get, room.tenants.suspend, room.tenants.activate]) {
    await expect(act.call(room.tenants, unknown)).rejects.toMatchObject({
      ...{ status: 404, code: 'tenant_not_found' },
    })
  }
})

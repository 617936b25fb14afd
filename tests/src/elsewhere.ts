import { randomUUID } from 'node:crypto'
import type { Role } from '@cloudphone/contracts/access'
import { type Client, openClient } from '@cloudphone/sdk/client'
import { newPerson } from './door.ts'
import type { TestPlatform } from './platform.ts'

/**
 * Somebody of a tenant of his own, which does not run the platform: written into the tables, since the way of a person
 * leads through a mail.
 */
export async function somebodyElsewhere(
  platform: Pick<TestPlatform, 'books' | 'client'>,
  { role = 'admin', slug = 'elsewhere' }: { role?: Role; slug?: string } = {},
): Promise<Client & { readonly tenantId: string }> {
  const { user, email, password } = await newPerson(platform.client, role)
  const tenantId = randomUUID()
  await platform.books.query('insert into users.tenants (id, slug, name) values ($1, $2, $2)', [
    tenantId,
    slug,
  ])
  await platform.books.query('update users.users set tenant_id = $1 where id = $2', [tenantId, user.id])
  const { url } = platform.client
  return { ...openClient({ url, credentials: { kind: 'password', email, password } }), tenantId }
}

import type { Client } from '@cloudphone/sdk/client'
import fc from 'fast-check'
import { cast, foundTenant } from '../access-cast.ts'
import { ask, newPerson } from '../door.ts'
import type { TestPlatform } from '../platform.ts'
import { type Case, casesOf, type KnownIds, mutationsOf } from './cases.ts'
import { Judge } from './judge.ts'
import { type Operation, operationsOf } from './operations.ts'

/** A platform that is fuzzed: what can be asked of it, by whom, about what. */
export interface FuzzRoom {
  readonly operations: readonly Operation[]
  readonly known: KnownIds
  readonly judge: Judge
}

/** Fills a platform with the things of two tenants, and finds out what can be asked about them. */
export async function openFuzzRoom(platform: TestPlatform): Promise<FuzzRoom> {
  const [here, elsewhere] = await Promise.all([
    foundTenant(platform, 'here'),
    foundTenant(platform, 'elsewhere'),
  ])
  const [mate, alien] = await Promise.all([
    cast(platform, here, 'member'),
    cast(platform, elsewhere, 'member'),
  ])
  const [member, viewer] = await Promise.all([newPerson(here), newPerson(here, 'viewer')])
  const operations = await operationsOf(platform.url)
  const listed = await listedIds(operations, [here, mate.person.client, elsewhere])
  const known: Record<string, string[]> = { ...listed }
  for (const { things } of [mate, alien]) {
    for (const [name, id] of Object.entries(things)) known[name] = [...(known[name] ?? []), id]
  }
  // The askers' own accounts stay as they are: a fuzz whose people have no rights left would test nothing.
  known.userId = [mate.person.user.id, alien.person.user.id]
  const judge = new Judge(platform.url, {
    ...{ admin: platform.client, member: member.client, viewer: viewer.client, stranger: elsewhere },
  })
  return { operations, known, judge }
}

/** What `GET /things` lists is what `/things/{thingId}` takes. */
async function listedIds(
  operations: readonly Operation[],
  clients: readonly Client[],
): Promise<Record<string, string[]>> {
  const known: Record<string, string[]> = {}
  for (const { path } of operations) {
    const [, list, name] = /^([^{]*)\/\{(\w+)\}/.exec(path) ?? []
    if (list === undefined || name === undefined || name in known) continue
    if (!operations.some((one) => one.method === 'GET' && one.path === list)) continue
    const answers = await Promise.all(clients.map((client) => ask(client, 'GET', list)))
    known[name] = answers.flatMap(({ body }) =>
      ((body?.data ?? []) as Record<string, unknown>[]).map((item) => String(item[name] ?? item.id)),
    )
  }
  return known
}

/** Any case of any operation. */
export function anyCase({ operations, known }: FuzzRoom): fc.Arbitrary<Case> {
  return fc
    .constantFrom(...operations)
    .chain((operation) =>
      fc.constantFrom(...mutationsOf(operation)).chain((one) => casesOf(operation, one, known)),
    )
}

/**
 * What a run starts from: `FUZZ_SEED` and `FUZZ_PATH` bring back the one that fast-check has printed; else the seed is
 * new, and printed.
 */
export function fuzzParameters(numRuns: number): fc.Parameters<[Case]> {
  const seed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31))
  const path = process.env.FUZZ_PATH
  console.log(`fuzz: FUZZ_SEED=${seed}, ${numRuns} cases`)
  return { seed, numRuns, ...(path !== undefined && { path }), interruptAfterTimeLimit: 240_000 }
}

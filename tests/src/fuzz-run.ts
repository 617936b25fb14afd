import { randomInt } from 'node:crypto'
import { ListSagas } from '@cloudphone/contracts/api/platform-api'
import { CreateApiKey } from '@cloudphone/contracts/api/users-api'
import type { Client } from '@cloudphone/sdk/client'
import fc from 'fast-check'
import { createPhone, newPerson } from './door.ts'
import { type FuzzRequest, type KnownIds, type Operation, openSender, requestsOf, wrongWith } from './fuzz.ts'

/** The seed to repeat a run with: `FUZZ_SEED`, or else the one given, or else any. */
export function fuzzSeed(usual?: number): number {
  const given = process.env.FUZZ_SEED
  return given === undefined ? (usual ?? randomInt(2 ** 31)) : Number(given)
}

/** Who asks, and for whose things. */
export interface FuzzTown {
  readonly url: string
  readonly tokens: Readonly<Record<string, () => Promise<string | undefined>>>
  readonly known: KnownIds
}

/** A phone, a key and people, at a platform that nobody else uses. `admin` is asked as, but never asked for. */
export async function fuzzTown(admin: Client): Promise<FuzzTown> {
  const [member, victim] = await Promise.all([newPerson(admin), newPerson(admin)])
  const phone = await createPhone(member.client)
  const { items: sagas } = await member.client.call(ListSagas)
  const apiKey = await victim.client.call(CreateApiKey, { body: { name: 'a key' } })
  return {
    url: admin.url,
    tokens: {
      admin: () => admin.accessToken(),
      member: () => member.client.accessToken(),
      nobody: async () => undefined,
      forger: async () => `${(await member.client.accessToken()).slice(0, -8)}AAAAAAAA`,
    },
    known: {
      userId: [victim.user.id],
      deviceId: [phone.id],
      apiKeyId: [apiKey.id],
      sagaId: sagas.map(({ sagaId }) => sagaId),
    },
  }
}

const who = ['admin', 'admin', 'admin', 'admin', 'admin', 'member', 'member', 'nobody', 'forger']

/**
 * Sends `runs` requests to each of the groups of operations given.
 * @throws Error with the seed, the path to the counterexample and the smallest request that is answered wrongly.
 */
export async function fuzz(
  town: FuzzTown,
  operations: readonly Operation[],
  { seed, runs }: { seed: number; runs: number },
): Promise<ReadonlyMap<number, number>> {
  const statuses = new Map<number, number>()
  const sender = openSender(town.url)
  const requests = fc.oneof(...operations.map((one) => requestsOf(one, town.known, who)))
  try {
    await fc.assert(
      fc.asyncProperty(requests, async (request: FuzzRequest) => {
        const answer = await sender.send(request, await town.tokens[request.as]?.())
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
        const wrong = wrongWith(answer)
        if (wrong !== undefined) throw new Error(`${wrong}: ${answer.status} ${answer.text.slice(0, 500)}`)
      }),
      { seed, numRuns: runs, endOnFailure: process.env.FUZZ_SHRINK === undefined },
    )
  } finally {
    sender.close()
  }
  return statuses
}

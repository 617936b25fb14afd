import { randomInt } from 'node:crypto'
import { ListSagas } from '@cloudphone/contracts/api/platform-api'
import { CreateApiKey } from '@cloudphone/contracts/api/users-api'
import { type Client, openClient } from '@cloudphone/sdk/client'
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
  /** The token of somebody, or none. */
  tokenOf(name: string): Promise<string | undefined>
  /** Signs somebody in anew: what is asked may well end his session, or change the key that it is signed with. */
  renew(name: string): void
  readonly known: KnownIds
}

/** A phone, a key and people, at a platform that nobody else uses. Those who ask are never asked for. */
export async function fuzzTown(founder: Client): Promise<FuzzTown> {
  const [admin, member, victim] = await Promise.all([
    newPerson(founder, 'admin'),
    newPerson(founder),
    newPerson(founder),
  ])
  const phone = await createPhone(member.client)
  const { items: sagas } = await member.client.call(ListSagas)
  const apiKey = await victim.client.call(CreateApiKey, { body: { name: 'a key' } })
  const people = new Map(Object.entries({ admin, member }))
  const clients = new Map(Object.entries({ admin: admin.client, member: member.client }))
  return {
    url: founder.url,
    tokenOf: async (name) => {
      if (name !== 'forger') return await clients.get(name)?.accessToken()
      return `${(await clients.get('member')?.accessToken())?.slice(0, -8)}AAAAAAAA`
    },
    renew: (name) => {
      const person = people.get(name)
      if (person === undefined) return
      const { email, password } = person
      clients.set(name, openClient({ url: founder.url, credentials: { kind: 'password', email, password } }))
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
        const answer = await sender.send(request, await town.tokenOf(request.as))
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
        if (answer.status === 401) town.renew(request.as)
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

/* The shape of a device creation (S6): a reservation, two effects at a provider, rows, and a question to another room. */
import { defineEvent, type PayloadOf, type ReceivedEvent } from '@cloudphone/contracts/event'
import type { Subscription } from '@cloudphone/contracts/topology'
import type { AnyTx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import { saga } from '@cloudphone/saga/builder'
import type { RetryPolicy } from '@cloudphone/saga/definition'
import type { Sagas } from '@cloudphone/saga/engine'
import { PermanentError } from '@cloudphone/saga/errors'
import { sql } from 'kysely'
import { z } from 'zod'
import type { ProviderClient } from './provider-client.ts'

/** Without unique keys where a doubled effect shall show: `thing_port`. */
export const CREATION_TABLES = `
  create table quota (
    tenant text primary key, used integer not null, allowed integer not null, check (used between 0 and allowed));
  create table thing (
    id text primary key, saga_id text not null, status text not null, resource_id text, version integer not null);
  create table thing_port (thing_id text not null, port integer not null);
  -- A forgotten one is the tombstone that refuses a late announcement.
  create table registration (
    thing_id text primary key, answers integer not null default 0, status text not null,
    check (status in ('registered', 'refused', 'forgotten')));`

const ofThing = z.object({ sagaId: z.string(), thingId: z.string() })

const ThingAnnounced = defineEvent({
  name: 'thing.announced',
  version: 1,
  aggregate: 'thing',
  description: 'A thing asks to be registered.',
  payload: ofThing.extend({ unwanted: z.boolean() }),
})

const ThingWithdrawn = defineEvent({
  name: 'thing.withdrawn',
  version: 1,
  aggregate: 'thing',
  description: 'A thing is not to be registered, whether it was or not.',
  payload: ofThing,
})

const ThingReady = defineEvent({
  name: 'thing.ready',
  version: 1,
  aggregate: 'thing',
  description: 'A thing can be used.',
  payload: ofThing,
})

const ThingRegistered = defineEvent({
  name: 'thing.registered',
  version: 1,
  aggregate: 'registration',
  description: 'The answer to an announcement.',
  payload: ofThing.extend({ status: z.string() }),
})

/** Who hears what of a creation. */
export const creationTopology: readonly Subscription[] = [
  { queue: 'users.thing', service: 'users', events: [ThingAnnounced, ThingWithdrawn], critical: true },
  { queue: 'devices.thing-registered', service: 'devices', events: [ThingRegistered], critical: true },
  { queue: 'notifications.thing', service: 'notifications', events: [ThingReady], critical: true },
]

export interface CreationInput {
  readonly thingId: string
  readonly tenant: string
  /** Makes the registry refuse it, so that everything is undone. */
  readonly unwanted: boolean
}

export interface CreationOptions {
  readonly outbox: Outbox
  readonly provider: ProviderClient
  readonly retry: RetryPolicy
  readonly registeredWithinMs: number
}

export function creationSaga({ outbox, provider, retry, registeredWithinMs }: CreationOptions) {
  return saga('thing_creation', 1, { timeoutMs: 600_000 })
    .input<CreationInput>()
    .local('RESERVE', reserve, retry)
    .undo(unreserve)
    .call(
      'CREATE_RESOURCE',
      async (_s, context) => {
        await provider.create('resource', context)
        return { resourceId: context.key }
      },
      retry,
    )
    .undo((_s, context) => provider.destroy('resource', context))
    .call('ALLOCATE_PORTS', async (_s, context) => ({ port: await provider.create('port', context) }), {
      ...retry,
      record: async (tx, { thingId, port }) => {
        await sql`insert into thing_port values (${thingId}, ${port})`.execute(tx)
      },
    })
    .undo((_s, context) => provider.destroy('port', context), {
      record: async (tx, { thingId }) => {
        await sql`delete from thing_port where thing_id = ${thingId}`.execute(tx)
      },
    })
    .local(
      'WRITE_ROWS',
      async (tx, { thingId, resourceId }) => {
        await sql`update thing set status = 'BOUND', resource_id = ${resourceId} where id = ${thingId}`.execute(
          tx,
        )
      },
      retry,
    )
    .undo(async (tx, { thingId }) => {
      await sql`update thing set status = 'RESERVED', resource_id = null where id = ${thingId}`.execute(tx)
    })
    .ask<{ registered: string }, typeof ThingAnnounced>(
      'ANNOUNCE',
      ThingAnnounced,
      (tx, { thingId, unwanted }, { sagaId }) => thingFact(tx, thingId, { sagaId, thingId, unwanted }),
      { withinMs: registeredWithinMs, ...retry },
    )
    .undo(async (tx, { thingId }, { sagaId }) => {
      await outbox.add(tx, ThingWithdrawn, await thingFact(tx, thingId, { sagaId, thingId }))
    })
    .onCompleted(async (tx, { thingId }, { sagaId }) => {
      await outbox.add(tx, ThingReady, await thingFact(tx, thingId, { sagaId, thingId }))
    })
    .end()
}

async function reserve(
  tx: AnyTx,
  { thingId, tenant }: CreationInput,
  { sagaId }: { sagaId: string },
): Promise<void> {
  const { rows } = await sql`
    update quota set used = used + 1 where tenant = ${tenant} and used < allowed returning used`.execute(tx)
  if (rows.length === 0) throw new PermanentError('over_quota', `${tenant} has no quota left`)
  await sql`insert into thing values (${thingId}, ${sagaId}, 'RESERVED', null, 0)`.execute(tx)
}

async function unreserve(tx: AnyTx, { thingId, tenant }: CreationInput): Promise<void> {
  const { rows } = await sql`delete from thing where id = ${thingId} returning id`.execute(tx)
  if (rows.length > 0) await sql`update quota set used = used - 1 where tenant = ${tenant}`.execute(tx)
}

async function thingFact<Payload>(tx: AnyTx, thingId: string, payload: Payload) {
  const { rows } = await sql<{ version: number }>`
    update thing set version = version + 1 where id = ${thingId} returning version`.execute(tx)
  if (rows[0] === undefined) throw new Error(`There is no thing ${thingId}`)
  return { aggregateId: thingId, aggregateVersion: rows[0].version, payload }
}

/** The events that the registry hears. */
export const toRegistry = [ThingAnnounced, ThingWithdrawn] as const
/** What it answers. */
export const fromRegistry = ThingRegistered
/** What is told of a finished creation. */
export const ofCreation = ThingReady

/** The registry: answers an announcement, however often it is heard, and never after the thing was withdrawn. */
export async function answerRegistry(
  tx: AnyTx,
  outbox: Outbox,
  { type, data }: ReceivedEvent<PayloadOf<typeof ThingAnnounced> | PayloadOf<typeof ThingWithdrawn>>,
): Promise<void> {
  const { sagaId, thingId } = data
  if (type === ThingWithdrawn.name) {
    await sql`
      insert into registration (thing_id, status) values (${thingId}, 'forgotten')
      on conflict (thing_id) do update set status = 'forgotten'`.execute(tx)
    return
  }
  const verdict = 'unwanted' in data && data.unwanted ? 'refused' : 'registered'
  const { rows } = await sql<{ answers: number; status: string }>`
    insert into registration values (${thingId}, 1, ${verdict})
    on conflict (thing_id) do update set answers = registration.answers + 1
    returning answers, status`.execute(tx)
  const { answers = 1, status = verdict } = rows[0] ?? {}
  await outbox.add(tx, ThingRegistered, {
    aggregateId: thingId,
    aggregateVersion: answers,
    payload: { sagaId, thingId, status },
  })
}

/** The creator's ear for the registry's answers. */
export async function hearRegistry(
  tx: AnyTx,
  sagas: Pick<Sagas, 'reply'>,
  { data }: ReceivedEvent<PayloadOf<typeof ThingRegistered>>,
): Promise<void> {
  const { sagaId, status } = data
  await sagas.reply(tx, {
    sagaId,
    step: 'ANNOUNCE',
    outcome:
      status === 'registered'
        ? { ok: true, result: { registered: status } }
        : { ok: false, error: { message: `The registry says ${status}`, code: status, retryable: false } },
  })
}

import { EVENTS_EXCHANGE } from '@cloudphone/bus/rabbitmq/topology'
import pg from 'pg'
import { Connection } from 'rabbitmq-client'
import type { Contestant } from '../contestant.ts'
import { auditQueue, emptyQueue } from './broker-queue.ts'
import type { EventOrder, EventOutcome } from './event-order.ts'
import { auditPublished, openBroker, QUEUE, type RelaySettings } from './ours-relay.ts'
import { clearProducer, fillOutbox, migrateProducer, PRODUCER } from './room.ts'

const PAGE = 500

interface Row {
  readonly id: string
  readonly type: string
  readonly envelope: string
}

/** Rows as the wire has them; whole pages are read at once, which is more than a plain loop would do. */
const NEXT_ROWS = `
  select id, event_type as type, json_build_object('specversion', '1.0', 'id', id, 'source', headers->>'source',
    'type', event_type, 'subject', aggregate_id, 'time', created_at, 'datacontenttype', 'application/json',
    'dataschema', headers->>'dataschema', 'aggregatetype', aggregate_type, 'aggregateversion', aggregate_version,
    'data', payload)::text as envelope
  from ${PRODUCER}.event_outbox where status <> 'published' order by position limit ${PAGE}`

/** The loop that an outbox usually begins with: publish one, wait for the broker's word, mark one, the next. @public */
export function openContestant({ url, brokerUrl }: RelaySettings): Contestant<EventOrder, EventOutcome> {
  let opened: { client: pg.Client; connection: Connection } | undefined
  return {
    async setUp() {
      await migrateProducer(url)
      const bus = openBroker(brokerUrl)
      await bus.declare()
      await bus.close()
    },
    async clear({ events }) {
      await emptyQueue(brokerUrl, QUEUE)
      await clearProducer(url)
      await fillOutbox(url, events)
    },
    async open() {
      const client = new pg.Client({ connectionString: url })
      await client.connect()
      const connection = new Connection(brokerUrl)
      await connection.onConnect()
      opened = { client, connection }
    },
    async work({ events }) {
      if (opened === undefined) throw new Error('the contestant is not open')
      const { client, connection } = opened
      const publisher = connection.createPublisher({ confirm: true })
      const startedMs = performance.now()
      for (;;) {
        const { rows } = await client.query<Row>(NEXT_ROWS)
        if (rows.length === 0) break
        for (const { id, type, envelope } of rows) {
          const message = { exchange: EVENTS_EXCHANGE, routingKey: type, durable: true, mandatory: true }
          await publisher.send({ ...message, messageId: id }, Buffer.from(envelope))
          await client.query({
            name: 'mark',
            text: `update ${PRODUCER}.event_outbox set status = 'published', published_at = now() where id = $1`,
            values: [id],
          })
        }
      }
      const elapsedMs = performance.now() - startedMs
      await publisher.close()
      return { events, elapsedMs }
    },
    async close() {
      await opened?.client.end()
      await opened?.connection.close()
      opened = undefined
    },
    async audit({ events }) {
      await auditPublished(url, events)
      await auditQueue(brokerUrl, QUEUE, events)
    },
  }
}

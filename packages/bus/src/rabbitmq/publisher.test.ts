import { EventEmitter } from 'node:events'
import { fakeClock } from '@cloudphone/testing/fake-clock'
import type { Channel } from 'rabbitmq-client'
import { expect, test } from 'vitest'
import { openPublisher } from './publisher.ts'

/* A broker whose queues lose their leaders cannot be had on one node, so here the client's channel is played. */

test('a queue that confirms nothing holds up its own events, not those that others have taken', async () => {
  const clock = fakeClock()
  const publisher = openPublisher({
    link: {
      acquire: async () => channelThatConfirms((type) => type !== 'dumb'),
      onBlocked: () => undefined,
      blocked: undefined,
      close: async () => undefined,
    },
    clock,
    prepare: async () => undefined,
    confirmTimeoutMs: 5_000,
  })
  const sent = publisher.send(['one', 'dumb', 'other'].map(outgoing))
  await clock.whenSleeping(1)
  await clock.advance(5_000)
  expect(await sent).toEqual([
    { outcome: 'accepted' },
    { outcome: 'failed', error: 'RabbitMQ did not confirm it within 5000 ms' },
    { outcome: 'accepted' },
  ])
  const silence = publisher.send([outgoing('dumb')])
  const refused = expect(silence).rejects.toThrow('confirmed nothing')
  await clock.whenSleeping(1)
  await clock.advance(5_000)
  await refused
})

function outgoing(eventType: string) {
  return {
    exchange: 'e',
    routingKey: eventType,
    mandatory: true,
    eventId: eventType,
    eventType,
    headers: {},
    body: Buffer.from('{}'),
  }
}

function channelThatConfirms(confirms: (type: string) => boolean): Channel {
  const channel = Object.assign(new EventEmitter(), {
    active: true,
    confirmSelect: async () => undefined,
    close: async () => undefined,
    basicPublish: ({ type = '' }: { type?: string }) =>
      confirms(type) ? Promise.resolve() : new Promise<void>(() => undefined),
  })
  const played: unknown = channel
  return played as Channel
}

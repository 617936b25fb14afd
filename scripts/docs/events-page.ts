import { type EventDefinition, schemaName } from '@cloudphone/contracts/event'
import { events, subscriptions } from '@cloudphone/contracts/topology'

/** The part of a JSON Schema that a payload's fields use. */
interface FieldSchema {
  readonly type?: string | readonly string[]
  readonly format?: string
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly anyOf?: readonly FieldSchema[]
  readonly items?: FieldSchema
}

interface PayloadSchema {
  readonly properties?: Readonly<Record<string, FieldSchema>>
  readonly required?: readonly string[]
}

/** `docs/events.md`: every event with its payload, and who hears it. */
export function eventsPage(): string {
  return [
    '# Events',
    '',
    '<!-- Written by `npm run docs` from packages/contracts; edit there. -->',
    '',
    `${events.length} events. Each travels as a [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md)`,
    'envelope whose `subject` is the id of its aggregate and whose `aggregateversion` counts 1, 2, 3 ... within it; consumers',
    'get the events of one aggregate in that order, each at least once, and take each exactly once (inbox). A shape is never',
    'changed: a new one is a new version. An event that fails for good in a **critical** queue is kept as a dead letter',
    '(`cloudphone dead-letters`); in an informational one it is logged and done with.',
    '',
    '| event | about | heard by |',
    '|---|---|---|',
    ...events.map(
      (event) =>
        `| [\`${event.name}\`](#${anchor(event.name)}) | ${event.aggregate} | ${heardBy(event).join(', ') || 'nobody'} |`,
    ),
    '',
    ...events.flatMap(section),
  ].join('\n')
}

/** As GitHub makes it of a heading. */
function anchor(heading: string): string {
  return heading.toLowerCase().replaceAll(/[^\w -]/g, '')
}

function heardBy(event: EventDefinition): string[] {
  return [...new Set(queuesHearing(event).map(({ service }) => service))]
}

function queuesHearing(event: EventDefinition) {
  return subscriptions.filter((one) => one.events.some(({ name }) => name === event.name))
}

function section(event: EventDefinition): string[] {
  const queues = queuesHearing(event)
  return [
    `## ${event.name}`,
    '',
    `${event.description} Version ${event.version} (\`${schemaName(event)}\`), about one ${event.aggregate.replaceAll('_', ' ')}.`,
    '',
    '| field | type |',
    '|---|---|',
    ...fieldsOf(event).map(({ name, type }) => `| \`${name}\` | ${type} |`),
    '',
    ...(queues.length === 0
      ? ['No service subscribes.']
      : [
          '| queue | service | critical |',
          '|---|---|---|',
          ...queues.map(
            ({ queue, service, critical }) => `| \`${queue}\` | ${service} | ${critical ? 'yes' : 'no'} |`,
          ),
        ]),
    '',
  ]
}

function fieldsOf(event: EventDefinition): { name: string; type: string }[] {
  const { properties = {}, required = [] } = event.payload.toJSONSchema({ io: 'input' }) as PayloadSchema
  return Object.entries(properties).map(([name, schema]) => ({
    name,
    type: `${typeOf(schema)}${required.includes(name) ? '' : ', optional'}`,
  }))
}

function typeOf(schema: FieldSchema): string {
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeOf).join(' or ')
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value}\``).join(', ')
  if (schema.const !== undefined) return `\`${schema.const}\``
  if (schema.items !== undefined) return `list of ${typeOf(schema.items)}`
  const types = schema.type === undefined ? ['anything'] : [schema.type].flat()
  return `${types.join(' or ')}${schema.format === undefined ? '' : ` (${schema.format})`}`
}

import { Agent } from 'undici'
import { z } from 'zod'
import type { Address } from './registry.ts'

/** How an instance is made known. */
export interface Registration {
  readonly id: string
  /** The service's name in Consul. */
  readonly name: string
  /** Tells the installations that share a Consul apart. */
  readonly tag: string
  readonly address: Address
}

/** A Consul agent, as much of its HTTP API as the registry needs. Every call rejects when it does not answer well in time. */
export interface ConsulAgent {
  register(registration: Registration): Promise<void>
  deregister(id: string): Promise<void>
  /** Ids of what is registered at this agent. */
  registered(): Promise<ReadonlySet<string>>
  /**
   * The instances whose checks pass. With the `index` of an answer before, Consul holds the next one back until something
   * has changed or `waitSeconds` are over ("blocking queries", https://developer.hashicorp.com/consul/api-docs/features/blocking).
   */
  passing(
    what: { name: string; tag: string; index: number; waitSeconds: number },
    signal: AbortSignal,
  ): Promise<{ index: number; addresses: readonly Address[] }>
  close(): Promise<void>
}

export interface ConsulAgentOptions {
  /** Such as `http://127.0.0.1:8500`. */
  readonly url: string
  /** An ACL token; undefined where Consul needs none. */
  readonly token: string | undefined
}

const answerWithinMs = 1_000
/** Consul spreads the ends of waits over a sixteenth more. */
const waitGraceMs = 2_000

const Health = z.array(
  z.object({
    Node: z.object({ Address: z.string() }),
    Service: z.object({
      Address: z.string(),
      Port: z.number(),
      Meta: z.record(z.string(), z.string()).nullish(),
    }),
  }),
)
const Registered = z.record(z.string(), z.unknown())

/** Opens the way to an agent; connects on demand. */
export function openConsulAgent({ url, token }: ConsulAgentOptions): ConsulAgent {
  const agent = new Agent({ connections: 32, connect: { timeout: answerWithinMs } })
  const ask = async (
    method: 'GET' | 'PUT',
    path: string,
    {
      body,
      timeoutMs = answerWithinMs,
      signal,
    }: { body?: unknown; timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<{ index: number; text: string }> => {
    const timeout = AbortSignal.timeout(timeoutMs)
    const response = await agent.request({
      ...{ origin: url, path, method },
      headers: {
        ...(token !== undefined && { 'x-consul-token': token }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
    })
    const text = await response.body.text()
    if (response.statusCode !== 200)
      throw new Error(`Consul answers ${method} ${path} with ${response.statusCode}: ${text.slice(0, 200)}`)
    return { index: Number(response.headers['x-consul-index'] ?? 0), text }
  }

  return {
    register: async (registration) => {
      await ask('PUT', '/v1/agent/service/register', { body: definitionOf(registration) })
    },
    deregister: async (id) => {
      await ask('PUT', `/v1/agent/service/deregister/${encodeURIComponent(id)}`)
    },
    registered: async () => {
      const { text } = await ask('GET', '/v1/agent/services')
      return new Set(Object.keys(Registered.parse(JSON.parse(text))))
    },
    passing: async ({ name, tag, index, waitSeconds }, signal) => {
      const isFirst = index === 0
      // Any server may answer, also one that has lost its leader: an old address is better than none.
      const query = new URLSearchParams({ passing: '1', stale: '1', tag })
      if (!isFirst) {
        query.set('index', String(index))
        query.set('wait', `${waitSeconds}s`)
      }
      const answer = await ask('GET', `/v1/health/service/${encodeURIComponent(name)}?${query}`, {
        timeoutMs: isFirst ? answerWithinMs : waitSeconds * 1_000 + waitGraceMs,
        signal,
      })
      return { index: answer.index, addresses: addressesOf(Health.parse(JSON.parse(answer.text))) }
    },
    close: () => agent.destroy(),
  }
}

/** In rotation at once, since it registers when it is ready; out of it with the first check that fails. */
function definitionOf({ id, name, tag, address }: Registration): unknown {
  const url = new URL(address)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const isEverywhere = host === '0.0.0.0' || host === '::'
  const local = isEverywhere ? `${url.protocol}//127.0.0.1:${url.port}` : address
  return {
    ...{
      ID: id,
      Name: name,
      Tags: [tag],
      Port: Number(url.port),
      Meta: { scheme: url.protocol.slice(0, -1) },
    },
    // One that listens everywhere is found at the address of its agent, which runs on the same machine.
    ...(!isEverywhere && { Address: host }),
    Check: {
      ...{ Name: 'ready', HTTP: `${local}/health/ready`, Interval: '10s', Timeout: '2s', Status: 'passing' },
      // As little as Consul allows.
      DeregisterCriticalServiceAfter: '1m',
    },
  }
}

function addressesOf(found: z.infer<typeof Health>): readonly Address[] {
  return found.map(({ Node, Service }) => {
    const host = Service.Address === '' ? Node.Address : Service.Address
    return `${Service.Meta?.scheme ?? 'http'}://${host.includes(':') ? `[${host}]` : host}:${Service.Port}`
  })
}

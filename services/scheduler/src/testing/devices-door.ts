import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Device, SetHolder } from '@cloudphone/contracts/api/devices-api'
import type { Hygiene } from '@cloudphone/contracts/device'
import type { AllocationId, DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { ServiceTokens } from '@cloudphone/runtime/tokens'
import type { z } from 'zod'

type Hold = z.output<typeof SetHolder.body>

/** A phone as the devices service's side of the contract sees it. */
export interface Phone {
  readonly id: DeviceId
  running: boolean
  fence: number
  allocationId: AllocationId | null
  userId: UserId | null
  hygiene: Hygiene
}

/** Speaks the one route of the devices service that the scheduler calls, over real HTTP, by the contract's rules. */
export interface DevicesDoor extends AsyncDisposable {
  readonly address: string
  readonly phones: Map<DeviceId, Phone>
  readonly calls: { deviceId: DeviceId; hold: Hold; answered: number }[]
  /** Runs before a call is judged: to fail it, or to let something happen first. */
  before: (deviceId: DeviceId, hold: Hold) => Promise<'go_on' | 'unavailable' | 'busy'>
  /** Runs after a call has had its effect and before its answer leaves. */
  after: (deviceId: DeviceId, hold: Hold) => Promise<'answer' | 'cut'>
}

export async function openDevicesDoor(tokens: ServiceTokens): Promise<DevicesDoor> {
  const door: DevicesDoor = {
    address: '',
    phones: new Map(),
    calls: [],
    before: async () => 'go_on',
    after: async () => 'answer',
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  const server = createServer((request, response) => {
    void answer(door, tokens, request, response).catch((error: unknown) => {
      response.writeHead(500).end(String(error))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return Object.assign(door, { address: `http://127.0.0.1:${port}` })
}

const refusals = { unavailable: 'service_unavailable', busy: 'operation_in_progress' }
const statuses: Record<string, number> = { service_unavailable: 503, device_not_found: 404 }

async function answer(
  door: DevicesDoor,
  tokens: ServiceTokens,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  await tokens.verify((request.headers.authorization ?? '').replace('Bearer ', ''), 'devices')
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const { deviceId } = SetHolder.params.parse({
    deviceId: /^\/internal\/devices\/([^/]+)\/holder$/.exec(request.url ?? '')?.[1],
  })
  const hold = SetHolder.body.parse(JSON.parse(Buffer.concat(chunks).toString()))
  const verdict = await door.before(deviceId, hold)
  const code = verdict === 'go_on' ? judge(door, deviceId, hold) : refusals[verdict]
  const status = code === undefined ? 200 : (statuses[code] ?? 409)
  door.calls.push({ deviceId, hold, answered: status })
  if (code === undefined && (await door.after(deviceId, hold)) === 'cut') {
    request.socket.destroy()
    return
  }
  const phone = door.phones.get(deviceId)
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(
    JSON.stringify(
      code === undefined && phone !== undefined
        ? { success: true, data: deviceOf(phone) }
        : {
            type: 'about:blank',
            title: code,
            status,
            detail: `${code}`,
            code,
            requestId: 'r',
            success: false,
          },
    ),
  )
}

/** The rules of SetHolder: higher fences win, the same one is repeated without harm, only running phones are given. */
function judge(
  door: DevicesDoor,
  deviceId: DeviceId,
  { fence, allocationId, userId }: Hold,
): string | undefined {
  const phone = door.phones.get(deviceId)
  if (phone === undefined) return 'device_not_found'
  if (fence < phone.fence) return 'stale_allocation'
  if (!phone.running) return 'device_not_running'
  Object.assign(phone, { fence, allocationId, userId })
  return undefined
}

function deviceOf(phone: Phone): Device {
  const at = '2026-01-01T00:00:00.000Z'
  return {
    ...{ id: phone.id, name: 'pooled', tenantId: phone.id as string as TenantId, userId: null },
    ...{ status: phone.running ? 'RUNNING' : 'STOPPED', type: 'phone', providerType: 'simulated' },
    ...{
      cpuCores: 2,
      memoryMB: 2048,
      storageMB: 2048,
      resolution: '720x1280',
      dpi: 240,
      androidVersion: '11',
    },
    ...{
      containerName: null,
      adbHost: null,
      adbPort: null,
      allocationId: phone.allocationId,
      fence: phone.fence,
      hygiene: phone.hygiene,
    },
    ...{ metadata: {}, lastError: null, createdAt: at, updatedAt: at, startedAt: at },
  }
}

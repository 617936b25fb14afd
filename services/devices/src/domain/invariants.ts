import type { Claim, InvariantReport } from '@cloudphone/contracts/api/platform-api'
import type { DeviceId } from '@cloudphone/contracts/id'
import { type ObservedDevice, observeDevices } from '../db/device-repo.ts'
import { listNodes, nodeUse } from '../db/node-repo.ts'
import { portHoldings } from '../db/port-repo.ts'
import { listGrantedIds } from '../db/quota-grant-repo.ts'
import type { Resource } from '../providers/provider.ts'
import type { Deps } from './deps.ts'
import { nodeLabel } from './phone-spec.ts'

const MAX_CULPRITS = 100
type Culprit = InvariantReport['culprits'][number]

/** What this service can say about the platform's invariants, and what it claims of others' things. */
export async function judgeInvariants(
  deps: Deps,
): Promise<{ reports: readonly InvariantReport[]; claims: readonly Claim[] }> {
  const [resources, ports, rooms] = [
    await judgeResources(deps),
    await judgePorts(deps),
    await judgeRooms(deps),
  ]
  const devices = await observeDevices(deps.database.kysely)
  const granted = await listGrantedIds(deps.database.kysely)
  return {
    reports: [resources, ports, rooms],
    claims: [...quotaClaims(devices, granted), ...allocationClaims(devices)],
  }
}

async function judgeResources(deps: Deps): Promise<InvariantReport> {
  const name = 'every phone belongs to a device, every device has its phone'
  const before = await observeDevices(deps.database.kysely)
  const culprits: Culprit[] = []
  let resources: readonly Resource[]
  try {
    resources = await listResources(deps)
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    return report(1, name, 'the provider does not answer', [{ id: 'provider', detail }])
  }
  const after = await observeDevices(deps.database.kysely)
  const rows = new Map(after.map((row) => [row.id, row]))
  const phones = new Map(resources.map((resource) => [resource.deviceId, resource]))
  for (const { deviceId, name: phone, state } of resources) {
    if (!rows.has(deviceId))
      culprits.push({ id: deviceId, detail: `phone ${phone} (${state}) has no device` })
  }
  for (const old of before) {
    const row = rows.get(old.id)
    // What changed while we looked, or is being changed, is judged the next time.
    if (row === undefined || row.busy || old.busy || row.version !== old.version) continue
    const detail = mismatch(row, phones.get(row.id))
    if (detail !== undefined) culprits.push({ id: row.id, detail })
  }
  return report(1, name, `${resources.length} phones, ${after.length} devices`, culprits)
}

function mismatch(row: ObservedDevice, phone: Resource | undefined): string | undefined {
  // Between a crash and the pass that sees it, and for a phone in error, nothing is claimed.
  if (row.status === 'ERROR') return undefined
  if (row.status === 'CREATING' || row.status === 'DELETING') {
    return `device is ${row.status}, but no saga is about it`
  }
  if (phone === undefined) return `device is ${row.status}, its phone is gone`
  if (row.status === 'RUNNING' && phone.state !== 'running' && phone.state !== 'booting') {
    return `device is RUNNING, its phone is ${phone.state}`
  }
  if (row.status === 'STOPPED' && phone.state === 'running') return 'device is STOPPED, its phone runs'
  return undefined
}

async function listResources({ database, providers }: Deps): Promise<readonly Resource[]> {
  const nodes = await listNodes(database.kysely)
  const lists = await Promise.all(
    nodes.map(({ id, provider_type }) => providers[provider_type].list(nodeLabel(id))),
  )
  return lists.flat()
}

async function judgePorts({ database }: Deps): Promise<InvariantReport> {
  const holdings = await portHoldings(database.kysely)
  const held = new Set(holdings.map((one) => one.device_id))
  const culprits = holdings
    .filter((one) => one.row_port !== null && one.row_port !== one.adb_port)
    .map((one) => ({ id: one.device_id, detail: `holds adb port ${one.adb_port}, says ${one.row_port}` }))
  for (const row of await observeDevices(database.kysely)) {
    if (row.busy || row.adb_port === null || held.has(row.id)) continue
    culprits.push({ id: row.id, detail: `says adb port ${row.adb_port}, holds none` })
  }
  return report(2, 'a port is held by one device that exists', `${holdings.length} port holdings`, culprits)
}

async function judgeRooms({ database }: Deps): Promise<InvariantReport> {
  const nodes = await nodeUse(database.kysely)
  const culprits = nodes
    .filter(
      (node) =>
        node.cpu_used !== node.held_cpu ||
        node.memory_used_mb !== node.held_memory_mb ||
        node.phones_used !== node.held_phones,
    )
    .map((node) => ({
      id: node.id,
      detail: `${node.name} counts ${node.phones_used} phones, ${node.cpu_used} CPU, ${node.memory_used_mb} MB; its devices hold ${node.held_phones}, ${node.held_cpu}, ${node.held_memory_mb}`,
    }))
  const phones = nodes.reduce((sum, node) => sum + node.phones_used, 0)
  return report(
    2,
    'what nodes count is what devices hold',
    `${phones} phones on ${nodes.length} nodes`,
    culprits,
  )
}

function report(
  invariant: number,
  name: string,
  figure: string,
  culprits: readonly Culprit[],
): InvariantReport {
  return { invariant, name, figure, holds: culprits.length === 0, culprits: culprits.slice(0, MAX_CULPRITS) }
}

/**
 * Each dedicated device holds the quota that was reserved under its id, but for those that are settled later. The doctor
 * reads the status in the detail.
 */
function quotaClaims(devices: readonly ObservedDevice[], granted: ReadonlySet<DeviceId>): Claim[] {
  return devices
    .filter((row) => row.user_id !== null && !granted.has(row.id))
    .map((row) => ({ kind: 'quota', id: row.id, detail: row.status }))
}

/** Each held phone, by its own id; the detail is the allocation. */
function allocationClaims(devices: readonly ObservedDevice[]): Claim[] {
  return devices.flatMap((row) =>
    row.allocation_id === null ? [] : [{ kind: 'allocation', id: row.id, detail: row.allocation_id }],
  )
}

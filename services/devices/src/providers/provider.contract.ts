import { type DeviceId, systemIds } from '@cloudphone/contracts/id'
import { expect, test } from 'vitest'
import type { PhoneSpec, Provider } from './provider.ts'

/** What a provider's suite needs of its surroundings. */
export interface ProviderBench {
  readonly provider: Provider
  /** Makes a phone die as if by itself. */
  crash(deviceId: DeviceId): Promise<void>
  /** Makes the next creations fail in a way that may pass. */
  failCreations(times: number): Promise<void>
  /** An adb port that nobody uses. */
  port(): number
}

const labels = { 'cloudphone.node': systemIds.next<'node'>() }

function specFor(bench: ProviderBench, deviceId: DeviceId = systemIds.next<'device'>()): PhoneSpec {
  return {
    deviceId,
    name: `cloudphone-contract-${deviceId}`,
    labels: { ...labels, 'cloudphone.device': deviceId },
    width: 360,
    height: 640,
    dpi: 240,
    androidVersion: '11',
    tablet: false,
    cpuCores: 2,
    memoryMb: 2048,
    storageMb: 1024,
    adbPort: bench.port(),
    adbKeys: [],
    specific: {},
  }
}

/** The suite that every provider passes. */
export function providerContract(open: () => ProviderBench): void {
  test('create is idempotent and does not start', async () => {
    const bench = open()
    const spec = specFor(bench)
    const made = await bench.provider.create(spec)
    expect(made).toMatchObject({ deviceId: spec.deviceId, state: 'created', name: spec.name })
    expect(await bench.provider.create(spec)).toMatchObject({ externalId: made.externalId })
    await bench.provider.destroy(spec.deviceId)
  })

  test('start resolves when Android has booted; a second start finds it so', async () => {
    const bench = open()
    const spec = specFor(bench)
    await bench.provider.create(spec)
    const started = await bench.provider.start(spec.deviceId)
    expect(started.state).toBe('running')
    const again = await bench.provider.start(spec.deviceId)
    expect(again.generation).toBe(started.generation)
    await bench.provider.stop(spec.deviceId)
    expect(await bench.provider.probe(spec.deviceId)).toMatchObject({
      state: 'stopped',
      exitReason: 'requested',
    })
    expect((await bench.provider.start(spec.deviceId)).generation).toBe(started.generation + 1)
    await bench.provider.destroy(spec.deviceId)
  })

  test('stop and destroy of what is not there are fine; start is not', async () => {
    const bench = open()
    const nobody = systemIds.next<'device'>()
    await bench.provider.stop(nobody)
    await bench.provider.destroy(nobody)
    expect(await bench.provider.probe(nobody)).toBeUndefined()
    await expect(bench.provider.start(nobody)).rejects.toMatchObject({ name: 'ProviderError' })
  })

  test('a wipe leaves the phone off, as new, and proves it; of one that is not there nothing is left', async () => {
    const bench = open()
    const spec = specFor(bench)
    await bench.provider.create(spec)
    const { generation } = await bench.provider.start(spec.deviceId)
    expect(await bench.provider.wipe(spec.deviceId)).toMatchObject({ residue: [] })
    expect(await bench.provider.probe(spec.deviceId)).toMatchObject({ state: 'stopped' })
    expect(await bench.provider.wipe(spec.deviceId)).toMatchObject({ erased: 0, residue: [] })
    expect(await bench.provider.start(spec.deviceId)).toMatchObject({
      state: 'running',
      generation: generation + 1,
    })
    await bench.provider.destroy(spec.deviceId)
    expect(await bench.provider.wipe(spec.deviceId)).toEqual({ method: 'absent', erased: 0, residue: [] })
  })

  test('list finds what bears all the labels, and nothing else', async () => {
    const bench = open()
    const spec = specFor(bench)
    await bench.provider.create(spec)
    const found = await bench.provider.list({ 'cloudphone.device': spec.deviceId })
    expect(found.map(({ deviceId }) => deviceId)).toEqual([spec.deviceId])
    expect(await bench.provider.list({ ...spec.labels, 'cloudphone.device': 'other' })).toEqual([])
    await bench.provider.destroy(spec.deviceId)
    expect(await bench.provider.list({ 'cloudphone.device': spec.deviceId })).toEqual([])
  })

  test('a crash is seen as one, with its time', async () => {
    const bench = open()
    const spec = specFor(bench)
    await bench.provider.create(spec)
    await bench.provider.start(spec.deviceId)
    await bench.crash(spec.deviceId)
    const dead = await bench.provider.probe(spec.deviceId)
    expect(dead).toMatchObject({ state: 'crashed', exitReason: 'crash' })
    expect(dead?.exitedAt).toBeInstanceOf(Date)
    await bench.provider.destroy(spec.deviceId)
  })

  test('what may pass is retryable, an impossible request is not', async () => {
    const bench = open()
    const spec = specFor(bench)
    await bench.failCreations(1)
    await expect(bench.provider.create(spec)).rejects.toMatchObject({ retryable: true })
    await expect(bench.provider.create({ ...spec, width: 1 })).rejects.toMatchObject({ retryable: false })
    await bench.provider.create(spec)
    await bench.provider.destroy(spec.deviceId)
  })

  test('watch says at once that there is something to look at, and again when something happened', async () => {
    const bench = open()
    const ending = new AbortController()
    const hints = bench.provider.watch(ending.signal)[Symbol.asyncIterator]()
    expect((await hints.next()).done).toBe(false)
    const spec = specFor(bench)
    await bench.provider.create(spec)
    expect((await hints.next()).done).toBe(false)
    ending.abort(new Error('enough'))
    await hints.return?.()
    await bench.provider.destroy(spec.deviceId)
  })
}

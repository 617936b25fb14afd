import type { PayloadOf } from '@cloudphone/contracts/event'
import type { AllocationReleased, ReleaseReason } from '@cloudphone/contracts/events/allocation-events'
import { DeviceFailed } from '@cloudphone/contracts/events/device-events'
import { describe, expect, it } from 'vitest'
import { allocationReleased, deviceFailed } from './notice.ts'

const id = '0198a5a0-0000-7000-8000-000000000001'

type Released = PayloadOf<typeof AllocationReleased>

function released(reason: ReleaseReason, detail = ''): Released {
  return {
    ...{ allocationId: id, deviceId: id, userId: id, tenantId: id },
    ...{
      deviceName: 'phone-7',
      fence: 2,
      activatedAt: null,
      releasedAt: '2026-01-01T00:00:00Z',
      durationSeconds: 0,
    },
    ...{ reason, detail },
  } as Released
}

describe('a notice', () => {
  it('of a failed phone says why, in the words of the seed and in English', () => {
    const event = DeviceFailed.payload.parse({
      ...{ deviceId: id, deviceName: 'phone-7', tenantId: id, userId: id, allocationId: null, fence: 0 },
      ...{ reason: 'Docker container crashed', startedAt: null, failedAt: '2026-01-01T00:00:00Z' },
    })
    const notice = deviceFailed(event)
    expect(notice.message).toBe('设备故障：Docker container crashed')
    expect(notice.english.message).toContain('Docker container crashed')
  })

  it('of a hold that a failure ended says the same', () => {
    const notice = allocationReleased(released('device_failed', 'Docker container crashed'))
    expect(notice.message).toBe('设备故障：Docker container crashed')
    expect(notice.type).toBe('device_released')
  })

  it.each(['user', 'operator', 'expired', 'device_deleted', 'device_stopped', 'grant_failed'] as const)(
    'of a hold that ended by %s names the phone in both languages',
    (reason) => {
      const notice = allocationReleased(released(reason))
      expect(notice.message).toContain('phone-7')
      expect(notice.english.message).toContain('phone-7')
      expect(notice.data).toMatchObject({ reason, deviceId: id })
    },
  )
})

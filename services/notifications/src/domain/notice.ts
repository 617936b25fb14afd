/* Terminology:
 * - notice: what a person is told about an event; at most one per event and user
 * - push: bringing a stored notice to the user's open sockets at once; a lost push loses nothing
 */
import type { PayloadOf } from '@cloudphone/contracts/event'
import type { AllocationActivated, AllocationReleased } from '@cloudphone/contracts/events/allocation-events'
import type { AppInstallCompleted, AppInstallFailed } from '@cloudphone/contracts/events/app-events'
import type {
  DeviceCreationFailed,
  DeviceDeleted,
  DeviceFailed,
} from '@cloudphone/contracts/events/device-events'

/** The words of a notice, in both languages. */
export interface Notice {
  readonly type: string
  readonly title: string
  readonly message: string
  readonly english: { readonly title: string; readonly message: string }
  readonly data: Record<string, unknown>
}

type Released = PayloadOf<typeof AllocationReleased>

/** A dedicated phone failed: its owner is told why. */
export function deviceFailed(event: PayloadOf<typeof DeviceFailed>): Notice {
  return {
    type: 'device_failed',
    title: '设备故障',
    message: `设备故障：${event.reason}`,
    english: { title: 'Phone failed', message: `Your phone ${event.deviceName} failed: ${event.reason}` },
    data: { deviceId: event.deviceId, deviceName: event.deviceName, reason: event.reason },
  }
}

/** A dedicated phone was deleted. */
export function deviceDeleted(event: PayloadOf<typeof DeviceDeleted>): Notice {
  return {
    type: 'device_deleted',
    title: '设备已删除',
    message: `设备 ${event.deviceName} 已删除`,
    english: { title: 'Phone deleted', message: `Your phone ${event.deviceName} was deleted.` },
    data: { deviceId: event.deviceId, deviceName: event.deviceName },
  }
}

/** A creation failed and left nothing behind. */
export function creationFailed(event: PayloadOf<typeof DeviceCreationFailed>): Notice {
  return {
    type: 'device_creation_failed',
    title: '设备创建失败',
    message: `设备 ${event.deviceName} 创建失败：${event.reason}`,
    english: {
      title: 'Phone not created',
      message: `${event.deviceName} could not be created: ${event.reason}`,
    },
    data: {
      deviceId: event.deviceId,
      deviceName: event.deviceName,
      sagaId: event.sagaId,
      reason: event.reason,
    },
  }
}

/** A pooled phone is ready for its user. */
export function allocationActivated(event: PayloadOf<typeof AllocationActivated>): Notice {
  return {
    type: 'device_allocated',
    title: '设备已分配',
    message: `设备 ${event.deviceName} 已分配给您，到期时间 ${event.expiresAt}`,
    english: { title: 'Phone allocated', message: `${event.deviceName} is yours until ${event.expiresAt}.` },
    data: { allocationId: event.allocationId, deviceId: event.deviceId, expiresAt: event.expiresAt },
  }
}

const releaseWords: Record<Released['reason'], (event: Released) => { zh: string; en: string }> = {
  user: () => ({ zh: '已按您的要求释放', en: 'you gave it back' }),
  operator: () => ({ zh: '已由管理员释放', en: 'an operator took it back' }),
  expired: () => ({ zh: '使用时间已到', en: 'its time was up' }),
  device_failed: (event) => ({ zh: `设备故障：${event.detail}`, en: `it failed: ${event.detail}` }),
  device_deleted: () => ({ zh: '设备已删除', en: 'it was deleted' }),
  device_stopped: () => ({ zh: '设备已停止', en: 'it was stopped' }),
  grant_failed: () => ({ zh: '分配失败', en: 'it could not be handed over' }),
}

/** A pooled phone is no longer the user's; a failure says so in the seeds' own words. */
export function allocationReleased(event: Released): Notice {
  const words = releaseWords[event.reason](event)
  const failed = event.reason === 'device_failed'
  return {
    type: 'device_released',
    title: failed ? '设备故障' : '设备已释放',
    message: failed ? words.zh : `设备 ${event.deviceName} 已释放：${words.zh}`,
    english: {
      title: failed ? 'Phone failed' : 'Phone released',
      message: `${event.deviceName} is no longer yours: ${words.en}.`,
    },
    data: {
      allocationId: event.allocationId,
      deviceId: event.deviceId,
      reason: event.reason,
      durationSeconds: event.durationSeconds,
    },
  }
}

/** An app is on the phone. */
export function installCompleted(event: PayloadOf<typeof AppInstallCompleted>): Notice {
  return {
    type: 'app_installed',
    title: '应用安装成功',
    message: `应用 ${event.packageName} 安装成功`,
    english: { title: 'App installed', message: `${event.packageName} is installed.` },
    data: { installationId: event.installationId, deviceId: event.deviceId, packageName: event.packageName },
  }
}

/** An app is not on the phone, and why. */
export function installFailed(event: PayloadOf<typeof AppInstallFailed>): Notice {
  return {
    type: 'app_install_failed',
    title: '应用安装失败',
    message: `应用 ${event.packageName} 安装失败：${event.reason}`,
    english: {
      title: 'App not installed',
      message: `${event.packageName} was not installed: ${event.reason}`,
    },
    data: { installationId: event.installationId, deviceId: event.deviceId, reason: event.reason },
  }
}

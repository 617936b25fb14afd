/* Terminology:
 * - socket: a WebSocket that outsiders may open, by GET with `Upgrade: websocket` and their token in `Authorization`
 */
import type { Permission } from './access.ts'
import { DeviceId } from './id.ts'
import type { ServiceName } from './services.ts'

/** A WebSocket, declared once for who serves it, who lets it through and who opens it. */
export interface SocketRoute {
  readonly name: string
  readonly service: ServiceName
  readonly permission: Permission
  /** The path for a device. */
  readonly pathFor: (deviceId: DeviceId) => string
}

/**
 * The bytes of a phone's adb port, in binary messages as they come, both ways; adb's own sign-in follows inside. It closes
 * with 1000 when the phone hangs up, and with 4403 and a problem's code as reason when the caller must leave.
 */
export const AdbTunnel: SocketRoute = {
  name: 'adbTunnel',
  service: 'devices',
  permission: 'devices:use',
  pathFor: (deviceId) => `/api/devices/${deviceId}/adb`,
}

/** Closes a tunnel whose visitor must leave. */
export const mustLeaveCode = 4403

/** The device of a tunnel's path; undefined for any other path. */
export function tunnelTarget(path: string): DeviceId | undefined {
  const id = /^\/api\/devices\/([^/]+)\/adb$/.exec(path)?.[1]
  return id === undefined ? undefined : DeviceId.safeParse(id).data
}

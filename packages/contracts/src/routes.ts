import * as apps from './api/apps-api.ts'
import * as audit from './api/audit-api.ts'
import * as billing from './api/billing-api.ts'
import * as deviceOperations from './api/device-operations-api.ts'
import * as devices from './api/devices-api.ts'
import * as identity from './api/identity-api.ts'
import * as notifications from './api/notifications-api.ts'
import * as operator from './api/operator-api.ts'
import * as platform from './api/platform-api.ts'
import * as quota from './api/quota-api.ts'
import * as scheduler from './api/scheduler-api.ts'
import * as tenants from './api/tenants-api.ts'
import * as users from './api/users-api.ts'
import type { Route } from './route.ts'

function isRoute(value: unknown): value is Route {
  return (
    typeof value === 'object' && value !== null && 'method' in value && 'path' in value && 'answer' in value
  )
}

/** Every route of every service, in the order of the files and of their declarations. */
export const routes: readonly Route[] = [
  users,
  identity,
  tenants,
  quota,
  devices,
  deviceOperations,
  apps,
  scheduler,
  billing,
  notifications,
  platform,
  operator,
  audit,
].flatMap((module) => Object.values(module).filter(isRoute))

/** The routes that callers outside the platform may use: what the gateway serves and OpenAPI shows. */
export const publicRoutes: readonly Route[] = routes.filter((one) => one.access.kind !== 'service')

import { z } from 'zod'

export const ServiceName = z.enum([
  'gateway',
  'users',
  'devices',
  'apps',
  'scheduler',
  'billing',
  'notifications',
])
export type ServiceName = z.infer<typeof ServiceName>

interface ServiceFacts {
  /** Port = base + offset (+ 100 for each further instance on the same machine). */
  readonly portOffset: number
  /** The name under which instances register. */
  readonly registryName: string
  /** Which database holds the service's schema; the gateway keeps none. */
  readonly database: 'core' | 'billing' | null
  /** The types of saga that the service runs: `GET /api/sagas/:id` is routed by the id's prefix. */
  readonly sagas: readonly string[]
}

/** The roster: names, ports, databases and sagas of all services. */
export const services: Readonly<Record<ServiceName, ServiceFacts>> = {
  gateway: { portOffset: 0, registryName: 'api-gateway', database: null, sagas: [] },
  users: { portOffset: 1, registryName: 'user-service', database: 'core', sagas: [] },
  devices: {
    portOffset: 2,
    registryName: 'device-service',
    database: 'core',
    sagas: [
      'device_creation',
      'device_start',
      'device_stop',
      'device_reset',
      'device_deletion',
      'app_installation',
    ],
  },
  apps: { portOffset: 3, registryName: 'app-service', database: 'core', sagas: [] },
  scheduler: {
    portOffset: 4,
    registryName: 'scheduler-service',
    database: 'core',
    sagas: ['allocation_grant', 'allocation_release'],
  },
  billing: { portOffset: 5, registryName: 'billing-service', database: 'billing', sagas: [] },
  notifications: { portOffset: 6, registryName: 'notification-service', database: 'core', sagas: [] },
}

/** The service that keeps a saga, by the id's type prefix; undefined for a type nobody runs. */
export function serviceOfSaga(sagaId: string): ServiceName | undefined {
  const type = sagaId.replace(/-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, '')
  return ServiceName.options.find((name) => services[name].sagas.includes(type))
}

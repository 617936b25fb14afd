import type { OpenDoor } from './door.ts'

/** The doors that are Node processes. Each loads only what it needs. */
export const doors = {
  ours: () => import('./doors/ours.ts'),
  'fastify-http-proxy': () => import('./doors/fastify-http-proxy.ts'),
  express: () => import('./doors/express.ts'),
  floor: () => import('./doors/floor.ts'),
} satisfies Record<string, () => Promise<{ openDoor: OpenDoor }>>
export type DoorName = keyof typeof doors

import proxy from '@fastify/http-proxy'
import Fastify from 'fastify'
import type { OpenDoor } from '../door.ts'

/** The plugin as its documentation has it, and nothing else. */
export const openDoor: OpenDoor = async ({ upstream }) => {
  const app = Fastify()
  await app.register(proxy, { upstream })
  return await app.listen({ host: '127.0.0.1', port: 0 })
}

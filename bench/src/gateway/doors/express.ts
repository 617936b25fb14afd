import { once } from 'node:events'
import { Agent } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { createProxyMiddleware } from 'http-proxy-middleware'
import type { OpenDoor } from '../door.ts'

/** The middleware as its documentation has it, with an agent that keeps connections: without one it opens one per request. */
export const openDoor: OpenDoor = async ({ upstream }) => {
  const app = express()
  app.use(
    createProxyMiddleware({ target: upstream, agent: new Agent({ keepAlive: true, maxSockets: 1_024 }) }),
  )
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

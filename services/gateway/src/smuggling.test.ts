import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { openTown, type Town } from '@cloudphone/testing/town'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type GatewayTown, openGatewayTown } from './testing/gateway-town.ts'

/* Two readers of one stream of bytes must never see different requests in it. */

let whole: Town
let town: GatewayTown
/** What has come through. */
let reached: string[] = []

beforeAll(async () => {
  whole = await openTown()
  town = await openGatewayTown(whole)
  await town.rawNeighbour('devices', (request, response) => {
    reached.push(`${request.method} ${request.url}`)
    request.resume().once('end', () => response.end('{}'))
  })
})
afterAll(async () => {
  await town?.close()
  await whole?.close()
})
beforeEach(() => {
  reached = []
})

async function send(...lines: readonly string[]): Promise<string> {
  const { hostname, port } = new URL(town.url)
  const socket = connect(Number(port), hostname)
  socket.end(lines.join('\r\n'))
  return await text(socket)
}

const hidden = 'DELETE /api/devices/hidden HTTP/1.1\r\nhost: x\r\n\r\n'
const chunks = ['', '0', '', hidden]

test.each<[string, readonly string[]]>([
  ['a length and chunks', [`content-length: ${hidden.length}`, 'transfer-encoding: chunked', ...chunks]],
  ['chunks and a length', ['transfer-encoding: chunked', 'content-length: 5', ...chunks]],
  ['two lengths', ['content-length: 0', `content-length: ${hidden.length}`, '', hidden]],
  ['a list of lengths', [`content-length: 0, ${hidden.length}`, '', hidden]],
  ['a length with a sign', ['content-length: +0', '', hidden]],
  ['a negative length', ['content-length: -1', '', hidden]],
  ['a length in hexadecimal', ['content-length: 0x0', '', hidden]],
  ['a blank before the colon', ['content-length: 0', 'transfer-encoding : chunked', ...chunks]],
  ['a folded header', ['content-length: 0', 'transfer-encoding:', ' chunked', ...chunks]],
  ['an encoding that is not chunked', ['transfer-encoding: xchunked', ...chunks]],
  ['chunks that are not the last encoding', ['transfer-encoding: chunked, identity', ...chunks]],
  ['a header with a NUL', ['content-length: 0', 'x-a: \u0000', '', hidden]],
  ['a length beyond all', ['content-length: 99999999999999999999', '', hidden]],
  ['chunks behind a tab', ['content-length: 0', 'transfer-encoding:\u000bchunked', ...chunks]],
  ['a folded header before it', ['content-length: 0', 'x-a: b', ' transfer-encoding: chunked', ...chunks]],
  ['a bare CR', [`x-a: b\rcontent-length: ${hidden.length}`, '', hidden]],
  ['a chunk beyond all', ['transfer-encoding: chunked', '', 'fffffffffffffffff', '', hidden]],
  ['a chunk whose size is no number', ['transfer-encoding: chunked', '', 'zz', '', hidden]],
  ['a chunk that is longer than it says', ['transfer-encoding: chunked', '', '1', 'abc', '0', '', hidden]],
])('%s: the request is refused, and nothing in its body becomes another', async (_what, lines) => {
  const bearer = `authorization: Bearer ${town.token()}`
  const type = 'content-type: application/json'
  const answer = await send('POST /api/devices HTTP/1.1', 'host: x', bearer, type, ...lines)
  expect(answer).toMatch(/^HTTP\/1\.1 400 /)
  expect(answer.match(/^HTTP\/1\.1 /gm)).toHaveLength(1)
  expect(reached.filter((one) => one.includes('hidden'))).toEqual([])
})

test('who offers another protocol, as curl offers h2c, is answered in this one', async () => {
  const headers = { authorization: `Bearer ${town.token()}`, connection: 'upgrade', upgrade: 'h2c' }
  const [response] = await once(request(`${town.url}/api/devices`, { headers }).end(), 'response')
  expect([response.statusCode, await text(response)]).toEqual([200, '{}'])
  expect(reached).toEqual(['GET /api/devices'])
})

test('a WebSocket where there is none is refused by a problem', async () => {
  const key = ['sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==', 'sec-websocket-version: 13', '', '']
  const answer = await send('GET // HTTP/1.1', 'host: x', 'connection: upgrade', 'upgrade: websocket', ...key)
  expect(answer).toMatch(/^HTTP\/1\.1 404 /)
  expect(answer).toContain('"code":"not_found"')
})

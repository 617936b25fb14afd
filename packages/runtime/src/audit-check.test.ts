import { none, type Route, route } from '@cloudphone/contracts/route'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { describe, expect, it } from 'vitest'
import { openAuditCheck } from './audit-check.ts'
import type { Scope } from './request-scope.ts'

const thing: Parameters<typeof route>[0] = {
  ...{ name: 'setThing', summary: '', path: '/api/thing', answer: none },
  service: 'users',
  method: 'PUT',
  access: { kind: 'public' },
  audit: 'thing.set',
}
const setThing: Route = route(thing)
const scope = (more: Partial<Scope> = {}): Scope => ({
  ...{ actor: 'ann', requestId: 'r', sessionId: null, address: null },
  ...{ verbs: [], nothingChanged: false, over: false },
  ...more,
})

describe('a good answer of a changing route', () => {
  const metrics = openMetrics('test')
  const check = openAuditCheck({ log: silentLog(), metrics, strict: true })

  it.each<[string, Route, Scope]>([
    ['with its one record', setThing, scope({ verbs: ['thing.set'] })],
    ['that changed nothing', setThing, scope({ nothingChanged: true })],
    ['whose contract says that there is none', route({ ...thing, audit: { none: 'why' } }), scope()],
    ['that only services call', route({ ...thing, access: { kind: 'service' } }), scope()],
    ['that only reads', route({ ...thing, method: 'GET' }), scope()],
  ])('%s is fine', (_what, one, how) => {
    expect(() => check(one, how)).not.toThrow()
  })

  const { audit: _audit, ...unnamed } = thing
  it.each<[string, Route, Scope]>([
    ['without a record', setThing, scope()],
    ['under another verb', setThing, scope({ verbs: ['thing.drop'] })],
    ['with two', setThing, scope({ verbs: ['thing.set', 'thing.set'] })],
    [
      'with one, although nothing changed, and another',
      setThing,
      scope({ verbs: ['a.b'], nothingChanged: true }),
    ],
    ['whose contract names none', route(unnamed), scope({ verbs: ['thing.set'] })],
  ])('%s is an error in tests', (_what, one, how) => {
    expect(() => check(one, how)).toThrow(/setThing: its record should be/)
  })

  it('without a record stands in production: the gap is counted', async () => {
    const counted = openMetrics('production')
    const lenient = openAuditCheck({ log: silentLog(), metrics: counted, strict: false })
    expect(() => lenient(setThing, scope())).not.toThrow()
    expect(await counted.render()).toContain(
      'audit_records_missing_total{route="setThing",service="production"} 1',
    )
  })
})

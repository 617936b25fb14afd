import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parse } from 'yaml'
import { z } from 'zod'
import { openPlatform, type TestPlatform } from '../src/platform.ts'

const Rules = z.strictObject({
  groups: z.array(
    z.strictObject({
      name: z.string(),
      rules: z.array(
        z.strictObject({
          alert: z.string(),
          expr: z.string(),
          for: z.string().optional(),
          labels: z.strictObject({ severity: z.enum(['warning', 'critical']) }),
          annotations: z.strictObject({ summary: z.string(), runbook: z.string() }),
        }),
      ),
    }),
  ),
})

const docs = new URL('../../docs/', import.meta.url)
let platform: TestPlatform
beforeAll(async () => {
  platform = await openPlatform()
})
afterAll(() => platform?.close())

test('every figure that an alert rule reads is shown by some service', async () => {
  const pages = await Promise.all(
    platform.server.services.map(async ({ address }) => (await fetch(`${address}/metrics`)).text()),
  )
  const shown = new Set(
    pages.flatMap((page) => [...page.matchAll(/^# TYPE (\w+) /gm)].map(([, name]) => name)),
  )
  const rules = await rulesOf()
  const read = rules.flatMap(({ expr }) =>
    [...expr.matchAll(/\b[a-z]+(?:_[a-z]+)+\b/g)].map(([name]) => name),
  )
  const figures = read.filter((name) => name !== 'event_type')
  expect(figures.length).toBeGreaterThanOrEqual(rules.length)
  expect(figures.filter((name) => !shown.has(name))).toEqual([])
})

test('every runbook is a section of the operations page', async () => {
  const page = await readFile(new URL('operations.md', docs), 'utf8')
  const sections = [...page.matchAll(/^## (.+)$/gm)].map(([, title = '']) =>
    title.toLowerCase().replaceAll(' ', '-'),
  )
  for (const { annotations } of await rulesOf()) {
    expect(sections.map((section) => `docs/operations.md#${section}`)).toContain(annotations.runbook)
  }
})

async function rulesOf() {
  const { groups } = Rules.parse(parse(await readFile(new URL('alerts.yml', docs), 'utf8')))
  return groups.flatMap(({ rules }) => rules)
}

import { join } from 'node:path'
import { z } from 'zod'
import { readJson, writeFileAtomic } from './atomic-file.ts'
import { CreatePhone, PhoneState } from './host-api.ts'

/** A phone's own file, beside which lies what its users left. */
export const RECORD_FILE = 'phone.json'

/** What `phone.json` keeps: the phone as it was asked for, and what became of it. */
const PhoneRecordSchema = z.object({
  version: z.literal(1),
  spec: CreatePhone,
  createdAt: z.string(),
  state: PhoneState,
  startedAt: z.string().nullable(),
  bootedAt: z.string().nullable(),
  exitedAt: z.string().nullable(),
  exitReason: z.string().nullable(),
  generation: z.number(),
})

export type PhoneRecord = z.output<typeof PhoneRecordSchema>

export function newRecord(spec: CreatePhone, createdAt: Date): PhoneRecord {
  return {
    version: 1,
    spec,
    createdAt: createdAt.toISOString(),
    state: 'created',
    startedAt: null,
    bootedAt: null,
    exitedAt: null,
    exitReason: null,
    generation: 0,
  }
}

/** Undefined when the directory holds no `phone.json`: a creation that was cut off before it counted. */
export async function readRecord(dir: string): Promise<PhoneRecord | undefined> {
  const content = await readJson(recordPath(dir))
  if (content === undefined) return undefined
  const record = PhoneRecordSchema.safeParse(content)
  if (!record.success) throw new Error(`${recordPath(dir)} is damaged: ${z.prettifyError(record.error)}`)
  return record.data
}

export async function writeRecord(dir: string, record: PhoneRecord): Promise<void> {
  await writeFileAtomic(recordPath(dir), `${JSON.stringify(record, undefined, 2)}\n`)
}

function recordPath(dir: string): string {
  return join(dir, RECORD_FILE)
}

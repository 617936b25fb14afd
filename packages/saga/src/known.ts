import { type QueryExecutorProvider, sql } from 'kysely'
import type { SagaDefinition } from './definition.ts'
import { MissingDefinition } from './errors.ts'
import { definitionKey } from './view.ts'

/**
 * Throws `MissingDefinition` when live sagas stand on a version that is not among `definitions`, or at a step that
 * their version does not have at that place: nobody would ever finish them.
 */
export async function refuseMissing(
  db: QueryExecutorProvider,
  definitions: ReadonlyMap<string, SagaDefinition<never, never>>,
): Promise<void> {
  const { rows } = await sql<{
    saga_type: string
    def_version: number
    current_step: string
    step_index: number
    count: number
  }>`
    select saga_type, def_version, current_step, step_index, count(*) as count from saga_state
    where status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK', 'QUARANTINED')
    group by 1, 2, 3, 4 order by 1, 2, 4`.execute(db)
  const problems: string[] = []
  for (const row of rows) {
    const definition = definitions.get(definitionKey(row.saga_type, row.def_version))
    const place = `${row.count} live at ${row.current_step} (step ${row.step_index})`
    if (definition === undefined) {
      problems.push(`${row.saga_type} version ${row.def_version} is missing, ${place}`)
    } else if (definition.steps[row.step_index]?.name !== row.current_step) {
      problems.push(`${row.saga_type} version ${row.def_version} has no such step, ${place}`)
    }
  }
  if (problems.length > 0) {
    throw new MissingDefinition(
      `Live sagas need definitions that are not here: ${problems.join('; ')}. Keep a version until its last saga has ended.`,
    )
  }
}

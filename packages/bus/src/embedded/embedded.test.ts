import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { busContract } from '../bus.contract.ts'
import { EMBEDDED_BUS_MIGRATIONS } from './embedded-bus.ts'

busContract('embedded bus', async () => {
  const database = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS],
    schema: 'bus',
  })
  return {
    adapter: new URL('./drill-bus.ts', import.meta.url),
    settings: { url: database.url, schema: database.schema },
    close: () => database.drop(),
  }
})

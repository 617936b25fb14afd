import { publicRoutes } from '@cloudphone/contracts/routes'
import { openApiOf } from '../../services/gateway/src/domain/openapi.ts'
import { eventsPage } from './events-page.ts'

/** The pages that are made of the contracts: path below the project, and what must stand there. */
export function generatedPages({ version }: { version: string }): ReadonlyMap<string, string> {
  // The order of a module's exports differs between Node (by name) and a bundler (as declared).
  const key = ({ path, method }: (typeof publicRoutes)[number]) => `${path} ${method}`
  const routes = publicRoutes.toSorted((one, other) => (key(one) < key(other) ? -1 : 1))
  const openApi = openApiOf(routes, { version })
  return new Map([
    ['docs/events.md', eventsPage()],
    ['docs/openapi.json', `${JSON.stringify(openApi, null, 2)}\n`],
  ])
}

import { Readable } from 'node:stream'
import { ExportAudit, ListAudit } from '@cloudphone/contracts/api/audit-api'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { AuditSearch } from '../domain/audit-search.ts'
import { csvOf, ndjsonOf } from '../domain/audit-text.ts'

/** The audit log over HTTP: searched page by page, or exported as a stream that is read no faster than it is sent. */
export function auditRoutes(audit: AuditSearch): Binding[] {
  return [
    bind(ListAudit, ({ caller, query }) => audit.page(caller, query)),
    bind(ExportAudit, async ({ caller, query: { format, ...filter } }) => {
      // The first page before the answer begins: what is refused is a problem, and no broken stream.
      const pages = await begun(audit.all(caller, filter))
      const [text, mediaType, ending] =
        format === 'csv'
          ? ([csvOf(pages), 'text/csv; charset=utf-8', 'csv'] as const)
          : ([ndjsonOf(pages), 'application/x-ndjson', 'ndjson'] as const)
      return {
        body: Readable.from(text, { objectMode: false, highWaterMark: 65_536 }),
        mediaType,
        headers: {
          'content-disposition': `attachment; filename="audit.${ending}"`,
          'cache-control': 'no-store',
        },
      }
    }),
  ]
}

/** The same pages, of which the first has been read already. */
async function begun<Page>(pages: AsyncIterable<Page>): Promise<AsyncIterable<Page>> {
  const iterator = pages[Symbol.asyncIterator]()
  const first = await iterator.next()
  return (async function* () {
    if (first.done === true) return
    yield first.value
    yield* { [Symbol.asyncIterator]: () => iterator }
  })()
}

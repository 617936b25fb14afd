import type { Range, Row } from './figure.ts'

const titles = ['FIGURE', 'OURS', 'PEER', 'RATIO', 'WANTED', 'HOLDS'] as const

/** The rows for a terminal, in columns. */
export function drawTable(rows: readonly Row[]): string {
  const lines = [titles, ...rows.map(cells)]
  const widths = titles.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map((line) =>
      line
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** The rows as a table of Markdown. */
export function markdownTable(rows: readonly Row[]): string {
  return [
    '| figure | ours | peer | ratio | wanted | holds |',
    '|---|---:|---:|---:|---:|---|',
    ...rows.map((row) => `| ${cells(row).join(' | ')} |`),
  ].join('\n')
}

function cells({ name, ours, peer, ratio, wanted, holds, oursRange, peerRange }: Row): string[] {
  const verdict = wanted === null ? '-' : holds ? 'yes' : 'NO'
  return [name, shown(ours, oursRange), shown(peer, peerRange), shown(ratio), wanted ?? '-', verdict]
}

function shown(value: number | null, range?: Range): string {
  if (value === null) return '-'
  return range === undefined ? String(value) : `${value} (${range[0]}-${range[1]})`
}

import type { FaultOperation, FaultPlan, FaultReport, FaultRule } from './host-api.ts'

export interface FaultSubject {
  readonly op: FaultOperation
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
}

export interface FaultDecision {
  /** The first rule that hit. */
  readonly rule: FaultRule | undefined
  /** The report with its counts moved on; the same object when no rule was drawn. */
  readonly next: FaultReport
}

/** A plan whose rules have not been drawn yet. */
export function newReport(plan: FaultPlan): FaultReport {
  return { ...plan, counts: plan.rules.map(() => ({ draws: 0, hits: 0 })) }
}

/**
 * Which fault meets `subject`: the rules are drawn in order until one hits. Pure: the nth draw of a rule depends only on
 * the seed, the rule's place and n, so the same plan and the same requests give the same faults, also over a restart.
 */
export function decideFault(report: FaultReport, subject: FaultSubject): FaultDecision {
  let counts: FaultReport['counts'] | undefined
  for (const [index, rule] of report.rules.entries()) {
    const count = (counts ?? report.counts)[index] ?? { draws: 0, hits: 0 }
    if (!applies(rule, subject) || (rule.times !== undefined && count.hits >= rule.times)) continue
    const hit = draw(report.seed, index, count.draws) < rule.probability
    counts = [...(counts ?? report.counts)]
    counts[index] = { draws: count.draws + 1, hits: count.hits + (hit ? 1 : 0) }
    if (hit) return { rule, next: { ...report, counts } }
  }
  return { rule: undefined, next: counts === undefined ? report : { ...report, counts } }
}

function applies(rule: FaultRule, subject: FaultSubject): boolean {
  if (rule.op !== subject.op) return false
  const { name, labels = {} } = rule.match ?? {}
  if (name !== undefined && !globMatches(name, subject.name)) return false
  return Object.entries(labels).every(([key, value]) => subject.labels[key] === value)
}

/** Whether `text` matches a glob of `*` and `?`. Linear in the product of both lengths, whatever the pattern. */
export function globMatches(glob: string, text: string): boolean {
  let at = 0
  let from = 0
  let star = -1
  let resume = 0
  while (at < text.length) {
    if (glob[from] === '*') {
      star = from
      resume = at
      from += 1
    } else if (glob[from] === '?' || glob[from] === text[at]) {
      from += 1
      at += 1
    } else if (star >= 0) {
      from = star + 1
      resume += 1
      at = resume
    } else {
      return false
    }
  }
  while (glob[from] === '*') from += 1
  return from === glob.length
}

/** The nth draw of a rule, in [0, 1): the finaliser of splitmix32 over seed, rule and n. */
function draw(seed: number, rule: number, n: number): number {
  let z = (seed + Math.imul(rule + 1, 0x85ebca6b) + Math.imul(n + 1, 0x9e3779b9)) | 0
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
  return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32
}

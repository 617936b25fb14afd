import { type Claim, type InvariantReport, platformRoutes } from '@cloudphone/contracts/api/platform-api'
import type { ServiceName } from '@cloudphone/contracts/services'
import type { Clock } from '@cloudphone/observe/clock'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import {
  allocationMismatches,
  type Mismatch,
  quotaMismatches,
  sessionMismatches,
  stillWrong,
} from './claims.ts'
import { statefulServices } from './fleet.ts'

interface Statement {
  readonly reports: readonly InvariantReport[]
  readonly claims: readonly Claim[]
}
type Statements = ReadonlyMap<ServiceName, Statement | Error>

interface Diagnosis {
  readonly healthy: boolean
  readonly checkedAt: Date
  readonly reports: readonly InvariantReport[]
}

/** A transition between two services takes less than this, unless something is wrong. */
const secondLookAfterMs = 300
const maxCulprits = 100
/** The invariants of the architecture's list. */
const allInvariants = [1, 2, 3, 4, 5, 6, 7, 8, 9]

/**
 * Asks every service about the invariants and joins what they claim of each other. Reads no table itself. What differs
 * between two services is looked at once more after a while, so that a transition in flight is no false alarm.
 */
export class PlatformDoctor {
  readonly #client: ServiceClient
  readonly #clock: Clock

  constructor(client: ServiceClient, clock: Clock) {
    this.#client = client
    this.#clock = clock
  }

  /** At least one report for each invariant. A service that does not answer fails one of its own. */
  async examine(): Promise<Diagnosis> {
    const first = await this.#ask()
    const joins = [quotaJoin, sessionJoin, allocationJoin]
    const isSuspicious = joins.some((join) => (join(first)?.mismatches.length ?? 0) > 0)
    let second = first
    if (isSuspicious) {
      await this.#clock.sleep(secondLookAfterMs)
      second = await this.#ask()
    }
    const reports = [
      ...[...second.values()].flatMap((statement) => (statement instanceof Error ? [] : statement.reports)),
      ...joins.flatMap((join) => reportOf(join(first), join(second))),
      answering(second),
    ]
    const unreported = allInvariants.filter(
      (number) => !reports.some(({ invariant }) => invariant === number),
    )
    const all = [...reports, ...unreported.map(nobodyReports)].sort(
      (one, other) => one.invariant - other.invariant,
    )
    return { healthy: all.every(({ holds }) => holds), checkedAt: this.#clock.now(), reports: all }
  }

  async #ask(): Promise<Statements> {
    const answers = await Promise.all(
      statefulServices.map(async (name): Promise<[ServiceName, Statement | Error]> => {
        try {
          return [name, await this.#client.call(platformRoutes(name).invariants)]
        } catch (error) {
          // Not an error of ours: that a service does not answer is itself the finding.
          return [name, error instanceof Error ? error : new Error(String(error))]
        }
      }),
    )
    return new Map(answers)
  }
}

interface Joined {
  readonly invariant: number
  readonly name: string
  readonly figure: string
  readonly mismatches: readonly Mismatch[]
}

/** Undefined when one of the two did not answer: that is a finding of its own, and half a join proves nothing. */
function quotaJoin(statements: Statements): Joined | undefined {
  const users = claimsOf(statements, 'users')
  const devices = claimsOf(statements, 'devices')
  if (users === undefined || devices === undefined) return undefined
  return {
    invariant: 3,
    name: 'quota reserved = devices that hold it',
    figure: `${count(users, 'quota')} reservations, ${count(devices, 'quota')} devices`,
    mismatches: quotaMismatches(users, devices),
  }
}

function allocationJoin(statements: Statements): Joined | undefined {
  const scheduler = claimsOf(statements, 'scheduler')
  const devices = claimsOf(statements, 'devices')
  if (scheduler === undefined || devices === undefined) return undefined
  return {
    invariant: 4,
    name: 'active allocations = phones that are held',
    figure: `${count(scheduler, 'allocation')} active, ${count(devices, 'allocation')} held`,
    mismatches: allocationMismatches(scheduler, devices),
  }
}

function sessionJoin(statements: Statements): Joined | undefined {
  const users = claimsOf(statements, 'users')
  const scheduler = claimsOf(statements, 'scheduler')
  if (users === undefined || scheduler === undefined) return undefined
  return {
    invariant: 3,
    name: 'sessions counted = live allocations',
    figure: `${count(users, 'session')} sessions, ${count(scheduler, 'session')} live allocations`,
    mismatches: sessionMismatches(users, scheduler),
  }
}

function reportOf(first: Joined | undefined, second: Joined | undefined): InvariantReport[] {
  if (second === undefined) return []
  const culprits = stillWrong(first?.mismatches ?? [], second.mismatches)
  const { invariant, name, figure } = second
  return [{ invariant, name, figure, holds: culprits.length === 0, culprits: culprits.slice(0, maxCulprits) }]
}

/** Invariant 9 as far as a running platform can show it: every service stands on its tables and answers. */
function answering(statements: Statements): InvariantReport {
  const silent = [...statements].flatMap(([id, statement]) =>
    statement instanceof Error ? [{ id, detail: statement.message }] : [],
  )
  return {
    invariant: 9,
    name: 'every service answers from its tables',
    figure: `${statements.size - silent.length} of ${statements.size} services answer`,
    holds: silent.length === 0,
    culprits: silent,
  }
}

function nobodyReports(invariant: number): InvariantReport {
  return { invariant, name: 'not judged', figure: 'no service reports on it', holds: false, culprits: [] }
}

function claimsOf(statements: Statements, name: ServiceName): readonly Claim[] | undefined {
  const statement = statements.get(name)
  return statement === undefined || statement instanceof Error ? undefined : statement.claims
}

function count(claims: readonly Claim[], kind: string): number {
  return claims.filter((claim) => claim.kind === kind).length
}

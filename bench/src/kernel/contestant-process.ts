import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Contestant, VoidRound } from './contestant.ts'
import type { Answer, ContestantStart, Demand } from './contestant-main.ts'

/** A contestant in a process of its own, so that neither's heap, timers nor compiler disturb the other's rounds. */
export interface ContestantProcess<Order, Outcome> extends Contestant<Order, Outcome>, AsyncDisposable {
  readonly name: string
  readonly pid: number
}

export interface ContestantOptions {
  readonly name: string
  /** Beside the modules of contenders/, such as `ours-sagas.ts`. */
  readonly module: string
  readonly settings: unknown
  /** Where V8 writes a profile of each round's work; none when absent. */
  readonly profileDir?: string | undefined
}

/** Starts a contestant. */
export function startContestant<Order, Outcome>(
  options: ContestantOptions,
): ContestantProcess<Order, Outcome> {
  const { name, module, settings, profileDir } = options
  const order: ContestantStart = {
    module: new URL(`./contenders/${module}`, import.meta.url).href,
    settings,
    ...(profileDir && { profile: join(profileDir, name.replaceAll(/[^a-z0-9]+/gi, '-')) }),
  }
  const child = fork(
    fileURLToPath(new URL('./contestant-main.ts', import.meta.url)),
    [JSON.stringify(order)],
    {
      // Peers print what they deprecate at pg; the terminal is for figures.
      execArgv: ['--no-deprecation'],
      env: { ...process.env, NODE_ENV: 'production' },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    },
  )
  const ask = questions(name, child)
  const { pid } = child
  if (pid === undefined) throw new Error(`${name}: its process did not start`)
  return {
    name,
    pid,
    setUp: () => ask('setUp', null) as Promise<void>,
    clear: (input) => ask('clear', input) as Promise<void>,
    open: (input) => ask('open', input) as Promise<void>,
    work: (input) => ask('work', input) as Promise<Outcome>,
    close: () => ask('close', null) as Promise<void>,
    audit: (outcome) => ask('audit', outcome) as Promise<void>,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      child.disconnect()
      await ended
    },
  }
}

function questions(name: string, child: ChildProcess) {
  const open = new Map<number, PromiseWithResolvers<unknown>>()
  let lastId = 0
  child.on('message', (answer: Answer) => {
    const question = open.get(answer.id)
    open.delete(answer.id)
    // A result of nothing is left out on the way.
    if ('error' in answer)
      question?.reject(new (answer.isVoid ? VoidRound : Error)(`${name}: ${answer.error}`))
    else question?.resolve(answer.result)
  })
  child.once('exit', (code, signal) => {
    for (const question of open.values())
      question.reject(new Error(`${name}: its process ended (${signal ?? code})`))
  })
  return (verb: Demand['verb'], input: unknown): Promise<unknown> => {
    lastId += 1
    const question = Promise.withResolvers<unknown>()
    open.set(lastId, question)
    child.send({ id: lastId, verb, input } satisfies Demand)
    return question.promise
  }
}

import type { Duplex } from 'node:stream'

const FIRST_FREE_PORT = 40_000
const LAST_PORT = 65_535

/** Takes a connection made to a listener inside the phone; the duplex is the caller's end of it. */
export type Accept = () => Promise<Duplex | undefined>

/**
 * The sockets inside one phone: listeners by adb's own addresses (`tcp:8080`, `localabstract:scrcpy_1a2b`).
 * They are virtual, so two phones can both listen on tcp:8080 and nothing of a phone listens on the machine.
 */
export class PhoneNetwork {
  readonly #listeners = new Map<string, Accept>()

  /**
   * Listens on `address`; `tcp:0` takes a free port. Gives the address listened on, undefined when it is taken
   * or no socket address that a phone has.
   */
  listen(address: string, accept: Accept): string | undefined {
    const bound = address === 'tcp:0' ? this.#freePort() : address
    if (bound === undefined || !isPhoneAddress(bound) || this.#listeners.has(bound)) return undefined
    this.#listeners.set(bound, accept)
    return bound
  }

  unlisten(address: string): void {
    this.#listeners.delete(address)
  }

  /** Connects to what listens on `address`; undefined is "connection refused". */
  async connect(address: string): Promise<Duplex | undefined> {
    return await this.#listeners.get(address)?.()
  }

  #freePort(): string | undefined {
    for (let port = FIRST_FREE_PORT; port <= LAST_PORT; port += 1) {
      if (!this.#listeners.has(`tcp:${port}`)) return `tcp:${port}`
    }
    return undefined
  }
}

/** Whether `address` names a socket that can exist inside a phone. */
export function isPhoneAddress(address: string): boolean {
  const port = /^tcp:(\d{1,5})$/.exec(address)?.[1]
  if (port !== undefined) return Number(port) >= 1 && Number(port) <= LAST_PORT
  return /^(localabstract|localreserved|localfilesystem):.{1,107}$/.test(address)
}

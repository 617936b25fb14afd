import type { AdbConnection } from './connection.ts'
import { isPhoneAddress, type PhoneNetwork } from './phone-network.ts'
import type { AdbStream } from './stream.ts'

const MAX_FORWARDS = 64

/** `adb reverse`: listeners inside the phone whose connections come out at the host. They live as long as the connection. */
export class ReverseForwards {
  readonly #network: PhoneNetwork
  readonly #connection: AdbConnection
  readonly #forwards = new Map<string, string>()

  constructor(network: PhoneNetwork, connection: AdbConnection) {
    this.#network = network
    this.#connection = connection
  }

  /** Answers one `reverse:` request, as SERVICES.TXT describes the host's `forward` family, and closes the stream. */
  serve(request: string, stream: AdbStream): void {
    stream.resume()
    stream.end(this.#answer(request))
  }

  /** Stops listening. */
  close(): void {
    for (const local of this.#forwards.keys()) this.#network.unlisten(local)
    this.#forwards.clear()
  }

  #answer(request: string): string {
    if (request === 'list-forward') return framed(this.#list())
    if (request === 'killforward-all') {
      this.close()
      return 'OKAY'
    }
    if (request.startsWith('killforward:')) return this.#kill(request.slice('killforward:'.length))
    if (request.startsWith('forward:norebind:'))
      return this.#add(request.slice('forward:norebind:'.length), true)
    if (request.startsWith('forward:')) return this.#add(request.slice('forward:'.length), false)
    return failed('unknown reverse request')
  }

  #list(): string {
    return [...this.#forwards].map(([local, remote]) => `(reverse) ${local} ${remote}\n`).join('')
  }

  #kill(local: string): string {
    if (!this.#forwards.delete(local)) return failed(`listener '${local}' not found`)
    this.#network.unlisten(local)
    return 'OKAY'
  }

  #add(addresses: string, keep: boolean): string {
    const [local = '', remote = ''] = addresses.split(';', 2)
    if (remote === '') return failed('bad forward: no remote address')
    if (local !== 'tcp:0' && !isPhoneAddress(local)) return failed(`cannot listen on '${local}'`)
    if (this.#forwards.has(local)) {
      if (keep) return failed(`cannot rebind existing socket '${local}'`)
      this.#forwards.set(local, remote)
      return bound(local)
    }
    if (this.#forwards.size >= MAX_FORWARDS) return failed(`more than ${MAX_FORWARDS} reverse forwards`)
    let name = local
    const listening = this.#network.listen(local, async () => {
      const target = this.#forwards.get(name)
      return target === undefined ? undefined : await this.#connection.openToHost(target)
    })
    if (listening === undefined) return failed(`cannot bind listener: Address already in use`)
    name = listening
    this.#forwards.set(listening, remote)
    return bound(listening)
  }
}

/** Android tells the port of every TCP listener after the OKAY, so that `tcp:0` is of use. */
function bound(local: string): string {
  return local.startsWith('tcp:') ? `OKAY${framed(local.slice('tcp:'.length))}` : 'OKAY'
}

function framed(text: string): string {
  return Buffer.byteLength(text).toString(16).padStart(4, '0') + text
}

function failed(message: string): string {
  return `FAIL${framed(message)}`
}

import type { Payments } from '@cloudphone/saga/testing/purchase'

/** What can be had of the provider. */
export type Kind = 'resource' | 'port' | 'payment'

/** What an effect needs of a step's context. */
export interface EffectContext {
  readonly key: string
  readonly fence: number
  readonly signal: AbortSignal
}

/** One request to the provider. */
export interface ProviderRequest {
  readonly op: 'create' | 'destroy'
  readonly kind: Kind
  readonly key: string
  /** The saga. */
  readonly owner: string
  readonly fence: number
}

export interface ProviderClient {
  /** Makes a thing, or finds the one of that key; resolves with its number among those of its kind. */
  create(kind: Kind, context: EffectContext): Promise<number>
  /** Ensures that the thing is absent, and stays so. */
  destroy(kind: Kind, context: EffectContext): Promise<void>
}

/** Speaks to the provider at `url`. A refusal is an error that is tried again: whether it is final, the fence decides. */
export function providerClient(url: string): ProviderClient {
  const ask = async (op: ProviderRequest['op'], kind: Kind, context: EffectContext): Promise<number> => {
    const key = context.key.replace(/:undo$/, '')
    const [owner = ''] = key.split(':')
    const body: ProviderRequest = { op, kind, key, owner, fence: context.fence }
    const response = await fetch(url, {
      method: 'POST',
      body: JSON.stringify(body),
      signal: context.signal,
    })
    const answer = (await response.json()) as { number?: number; error?: string }
    if (answer.number === undefined) throw new Error(`provider: ${answer.error}`)
    return answer.number
  }
  return {
    create: (kind, context) => ask('create', kind, context),
    destroy: async (kind, context) => {
      await ask('destroy', kind, context)
    },
  }
}

/** The same provider as the one that takes payments. */
export function paymentsAt(provider: ProviderClient): Payments {
  return {
    open: async (payment) => {
      await provider.create('payment', payment)
    },
    close: (payment) => provider.destroy('payment', payment),
  }
}

import { hash, verify } from '@node-rs/argon2'

/** Hashes what people choose, and compares without telling by its time what was wrong. */
export interface PasswordHasher {
  hash(password: string): Promise<string>
  /** False for a wrong password, and after the same work for an account that does not exist (`undefined`). */
  matches(password: string, passwordHash: string | undefined): Promise<boolean>
}

/**
 * Argon2id (the library's default variant), 19 MiB, 2 passes, 1 lane: the first of the settings that OWASP's password
 * storage cheat sheet calls equally strong. It runs on libuv's pool, off the event loop, at most as many at a time as
 * that has threads, which also bounds the memory.
 */
const strength = { memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const

/**
 * Opens the hasher; makes the hash that stands in for accounts which do not exist. `argon2` is the library, or one that
 * counts.
 */
export async function openPasswordHasher(
  secret: string,
  argon2: { hash: typeof hash; verify: typeof verify } = { hash, verify },
): Promise<PasswordHasher> {
  const nobody = await argon2.hash(secret, strength)
  return {
    hash: (password) => argon2.hash(password, strength),
    matches: async (password, passwordHash) => {
      const same = await argon2.verify(passwordHash ?? nobody, password)
      return same && passwordHash !== undefined
    },
  }
}

import { createHash } from 'node:crypto'

/** Numbers in [0, 1) that a seed decides, so that the same drill can be had again: the nth is a hash of seed and n. */
export function seededRandom(seed: number): () => number {
  let drawn = 0
  return () => {
    drawn += 1
    return createHash('sha256').update(`${seed} ${drawn}`).digest().readUInt32BE(0) / 2 ** 32
  }
}

import { describe, test } from 'vitest'
import { backward, crashAt, forward } from './testing/crash-at.ts'

describe('a process killed anywhere is taken over by another, and nothing is lost, doubled or left behind', () => {
  test.concurrent.each(forward)('going forward, at %s', (place) => crashAt(place, false))
  test.concurrent.each(backward)('being undone, at %s', (place) => crashAt(place, true))
})

/** The value, where a test knows that there is one. @throws Error when there is none. */
export function present<Value>(value: Value | undefined | null): Value {
  if (value === undefined || value === null)
    throw new Error('the test expected something, and there is nothing')
  return value
}

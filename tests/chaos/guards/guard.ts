/** A place in a file of the project and what is put there instead. */
export interface Edit {
  /** From the project's root. */
  readonly file: string
  /** Stands there exactly once, line breaks and indentation included. */
  readonly find: string
  readonly replace: string
}

/** Something that keeps an invariant, how it is taken away, and who should notice. */
export interface Guard extends Edit {
  /** What it keeps, and where: unique among all. */
  readonly name: string
  /** What else has to go with it, or the rest would not run for reasons of its own: `on conflict` needs its constraint. */
  readonly also?: readonly Edit[]
  readonly tests: {
    readonly files: readonly string[]
    /** Part of the full name of the tests (suites before it, joined by spaces) that should notice. */
    readonly named: string
  }
}

/** Everything that is taken away with a guard, the guard itself first. */
export function editsOf({ file, find, replace, also = [] }: Guard): readonly Edit[] {
  return [{ file, find, replace }, ...also]
}

/**
 * The text with the edit made.
 * @throws Error when `find` is not there exactly once: the file was rewritten, and nobody knows whether the guard still is.
 */
export function withEdit(guard: string, text: string, { file, find, replace }: Edit): string {
  const count = text.split(find).length - 1
  if (count !== 1)
    throw new Error(
      `Guard '${guard}': its text is ${count} times in ${file}, not once. Was it rewritten? Mend tests/chaos/guards/. Looked for:\n${find}`,
    )
  if (find === replace) throw new Error(`Guard '${guard}': the edit of ${file} changes nothing`)
  return text.replace(find, () => replace)
}

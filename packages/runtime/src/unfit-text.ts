interface Step {
  readonly value: unknown
  /** The property's name or index in what is around it. */
  readonly name: string
  readonly around: Step | undefined
}

/**
 * Finds a string, or a property's name, that PostgreSQL cannot keep: one with U+0000, or with half of a surrogate pair. Answers
 * the names and indexes that lead there from outside in. Without recursion and copies, since a value may be deep.
 * @see https://www.postgresql.org/docs/current/datatype-json.html#JSON-TYPE-MAPPING-TABLE
 */
export function unfitText(value: unknown): string[] | undefined {
  const toDo: Step[] = [{ value, name: '', around: undefined }]
  for (let step = toDo.pop(); step !== undefined; step = toDo.pop()) {
    const { value: one } = step
    if (typeof one === 'string') {
      if (!isFit(one)) return placeOf(step)
    } else if (typeof one === 'object' && one !== null) {
      for (const [name, inner] of Object.entries(one)) {
        if (!isFit(name)) return placeOf(step)
        toDo.push({ value: inner, name, around: step })
      }
    }
  }
  return undefined
}

function isFit(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}

function placeOf(found: Step): string[] {
  const names: string[] = []
  for (let step = found; step.around !== undefined; step = step.around) names.unshift(step.name)
  return names
}

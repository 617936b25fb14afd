/** How many characters a password must have: NIST SP 800-63B asks for 8 at least; this house asks for more. */
const passwordMinLength = 12

/** Stems of what is guessed first, compared after folding case and undoing the usual substitutions. */
const guessedFirst = [
  'password',
  'passwort',
  'qwerty',
  'qwertz',
  'azerty',
  'letmein',
  'welcome',
  'administrator',
  'iloveyou',
  'cloudphone',
  'changeme',
]

const substitutions: Readonly<Record<string, string>> = {
  '0': 'o',
  '1': 'l',
  '3': 'e',
  '4': 'a',
  '5': 's',
  '7': 't',
  '@': 'a',
  $: 's',
  '!': 'i',
}

/**
 * Why a password is too easy to guess; undefined when it is not. No rule about kinds of characters: those make passwords
 * worse (NIST SP 800-63B, section 5.1.1.2).
 */
export function weaknessOf(
  password: string,
  owner: { readonly email: string; readonly name: string },
): string | undefined {
  const characters = [...password]
  if (characters.length < passwordMinLength) return `it has fewer than ${passwordMinLength} characters`
  if (new Set(characters).size < 5) return 'it has fewer than 5 different characters'
  if (isRun(characters)) return 'it is a run of neighbouring characters'
  const folded = fold(password)
  const own = [owner.email.split('@')[0] ?? '', ...owner.name.split(/\s+/)].map(fold)
  const personal = own.find((word) => word.length >= 4 && leftOver(folded, word) < 6)
  if (personal !== undefined) return 'it is little more than the name or the e-mail of its owner'
  if (guessedFirst.some((stem) => leftOver(folded, fold(stem)) < 6)) {
    return 'it is little more than a word that is guessed first'
  }
  return undefined
}

function fold(text: string): string {
  return [...text.toLowerCase()].map((character) => substitutions[character] ?? character).join('')
}

/** How many characters stand beside `word`; all of them count as many when it does not occur. */
function leftOver(text: string, word: string): number {
  return text.includes(word) ? text.replaceAll(word, '').length : Number.POSITIVE_INFINITY
}

/** True for `abcdefghijkl`, `210987654321`: each character the neighbour of the one before. */
function isRun(characters: readonly string[]): boolean {
  const steps = characters
    .slice(1)
    .map((character, index) => (character.codePointAt(0) ?? 0) - (characters[index]?.codePointAt(0) ?? 0))
  return steps.every((step) => Math.abs(step) === 1 || Math.abs(step) === 9)
}

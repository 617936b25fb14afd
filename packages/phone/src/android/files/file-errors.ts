import { PhoneFsError } from '../android.ts'

export function absent(): PhoneFsError {
  return new PhoneFsError('ENOENT', 'No such file or directory')
}

export function denied(): PhoneFsError {
  return new PhoneFsError('EACCES', 'Permission denied')
}

const KNOWN: Readonly<Record<string, readonly [PhoneFsError['code'], string]>> = {
  ENOENT: ['ENOENT', 'No such file or directory'],
  ENOTDIR: ['ENOTDIR', 'Not a directory'],
  EISDIR: ['EISDIR', 'Is a directory'],
  ENOTEMPTY: ['ENOTEMPTY', 'Directory not empty'],
  EEXIST: ['ENOTEMPTY', 'Directory not empty'],
  ENOSPC: ['ENOSPC', 'No space left on device'],
  ENAMETOOLONG: ['EINVAL', 'File name too long'],
  ELOOP: ['EINVAL', 'Too many symbolic links encountered'],
}

/** The host's error in the phone's words; the host's paths stay out of it. */
export function translate(error: unknown): PhoneFsError {
  if (error instanceof PhoneFsError) return error
  const [code, words] = KNOWN[(error as NodeJS.ErrnoException).code ?? ''] ?? ['EINVAL', 'I/O error']
  return new PhoneFsError(code, words)
}

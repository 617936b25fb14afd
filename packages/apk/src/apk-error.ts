/** Why a file is refused as an APK. */
export type ApkErrorCode =
  | 'apk_empty'
  | 'apk_not_zip'
  | 'apk_no_manifest'
  | 'apk_malformed'
  | 'apk_zip_bomb'
  | 'apk_too_large'

/** A file that is not an APK we are willing to read; `code` is for programs, `message` for people. */
export class ApkError extends Error {
  readonly code: ApkErrorCode
  constructor(code: ApkErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'ApkError'
    this.code = code
  }
}

/** Shorthand for the commonest refusal: the bytes do not follow the format. */
export function malformed(what: string, cause?: unknown): ApkError {
  return new ApkError('apk_malformed', what, cause === undefined ? undefined : { cause })
}

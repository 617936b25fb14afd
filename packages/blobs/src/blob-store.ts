import type { Readable } from 'node:stream'

export interface BlobInfo {
  readonly sizeBytes: number
  /** Hex. */
  readonly sha256: string
}

/** A blob that is being written is not there until `commit`; dropped otherwise. */
export interface BlobDraft extends AsyncDisposable, BlobInfo {
  /** A local file that holds the bytes until the draft is committed or disposed of: for parsers that need to seek. */
  readonly path: string
  /** Puts it in place under its key; a key that exists is replaced in one step. */
  commit(key: string): Promise<void>
}

/** The port behind which a directory or an S3 bucket stands. Keys look like `apps/<id>.apk`: no `..`, no leading `/`. */
export interface BlobStore {
  /** Streams bytes in, in constant memory. @throws what the source throws; nothing is left then. */
  draft(source: Readable): Promise<BlobDraft>
  /** Undefined when there is none. */
  open(
    key: string,
    range?: { start: number; end: number },
  ): Promise<{ body: Readable; sizeBytes: number } | undefined>
  /** Ensure absent. */
  delete(key: string): Promise<void>
  /** Keys under a prefix, sorted. */
  list(prefix: string): AsyncIterable<string>
  close(): Promise<void>
}

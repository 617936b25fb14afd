/* What reading, writing and looking at a node that is on no disk comes to. */
import { Readable, Writable } from 'node:stream'
import { PhoneFsError } from '../android.ts'
import { denied } from './file-errors.ts'
import type { VirtualNode } from './virtual-tree.ts'

const S_IFDIR = 0o040000
const S_IFREG = 0o100000
const S_IFLNK = 0o120000
const S_IFCHR = 0o020000

export function virtualStat(node: VirtualNode): { mode: number; size: number } {
  if (node.kind === 'dir') return { mode: S_IFDIR | 0o755, size: 4096 }
  if (node.kind === 'mount') return { mode: S_IFDIR | 0o771, size: 4096 }
  if (node.kind === 'link') return { mode: S_IFLNK | 0o777, size: node.target.length }
  if (node.kind === 'device') return { mode: S_IFCHR | 0o666, size: 0 }
  if (node.kind === 'trigger') return { mode: S_IFREG | 0o222, size: 0 }
  return { mode: S_IFREG | node.mode, size: Buffer.byteLength(node.content()) }
}

/** Where writes to a device or a trigger go; undefined for everything that keeps what is written. */
export function sinkOf(node: VirtualNode | undefined): Writable | undefined {
  // Taken a turn of the event loop later: `cat /dev/zero > /dev/null` must not keep all other phones waiting.
  if (node?.kind === 'device')
    return new Writable({ write: (_chunk, _encoding, done) => void setImmediate(done) })
  if (node?.kind !== 'trigger') return undefined
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      node.pull(chunk.toString())
      done()
    },
  })
}

export function readVirtual(node: VirtualNode): Readable {
  if (node.kind === 'file') return Readable.from([Buffer.from(node.content())], { objectMode: false })
  if (node.kind === 'trigger') throw denied()
  if (node.kind !== 'device') throw new PhoneFsError('EISDIR', 'Is a directory')
  if (node.device === 'null') return Readable.from([], { objectMode: false })
  return new Readable({
    read() {
      setImmediate(() => this.push(Buffer.alloc(64 * 1024)))
    },
  })
}

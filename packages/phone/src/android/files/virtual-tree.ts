/* Terminology:
 * - virtual node: a directory, file or link of the small read-only tree around /data
 * - mount: the virtual directory below which real files lie (only /data)
 */

export type VirtualNode =
  | { readonly kind: 'dir'; readonly entries: ReadonlyMap<string, VirtualNode> }
  | { readonly kind: 'file'; readonly mode: number; readonly content: () => string }
  | { readonly kind: 'link'; readonly target: string }
  | { readonly kind: 'device'; readonly device: 'null' | 'zero' }
  /** Takes commands and gives nothing: what is written is handed over, chunk by chunk. */
  | { readonly kind: 'trigger'; readonly pull: (text: string) => void }
  | { readonly kind: 'mount' }

/** A tree from paths; directories in between are made. */
export function virtualTree(nodes: Readonly<Record<string, VirtualNode>>): VirtualNode {
  const root = new Map<string, VirtualNode>()
  for (const [path, node] of Object.entries(nodes)) {
    const names = path.split('/').filter(Boolean)
    const last = names.pop()
    let directory = root
    for (const name of names) {
      const next = directory.get(name)
      if (next?.kind === 'dir') directory = next.entries as Map<string, VirtualNode>
      else {
        const made = new Map<string, VirtualNode>()
        directory.set(name, { kind: 'dir', entries: made })
        directory = made
      }
    }
    if (last !== undefined) directory.set(last, node)
  }
  return { kind: 'dir', entries: root }
}

export function textFile(content: () => string, mode = 0o444): VirtualNode {
  return { kind: 'file', mode, content }
}

export function link(target: string): VirtualNode {
  return { kind: 'link', target }
}

export const EMPTY_DIR: VirtualNode = { kind: 'dir', entries: new Map() }

export interface Access {
  readonly read: boolean
  readonly list: boolean
  readonly write: boolean
}

const NONE: Access = { read: false, list: false, write: false }
const READ: Access = { read: true, list: false, write: false }
const FULL: Access = { read: true, list: true, write: true }

/** What the shell user (uid 2000) may do with a path below /data, as Android's modes and SELinux leave it. */
export function accessTo(path: string): Access {
  if (isWithin(path, '/data/local/tmp')) return FULL
  if (isWithin(path, '/data/media/0')) return FULL
  // `pm path` names files here and `adb pull` may fetch them, but nobody may list the directory.
  if (path === '/data/app') return NONE
  if (isWithin(path, '/data/app')) return { ...READ, list: true }
  return NONE
}

/** Directories one may pass through on the way to one of the above. */
export function isTraversable(path: string): boolean {
  if (isWithin(path, '/data/app')) return true
  return ['/data', '/data/local', '/data/media'].includes(path) || accessTo(path).list
}

export function isWithin(path: string, dir: string): boolean {
  return path === dir || path.startsWith(`${dir}/`)
}

/* The process of one door: opens it, says where, and ends with its parent. */
import type { DoorSettings, OpenDoor } from './door.ts'

const [module = '', settings = ''] = process.argv.slice(2)
const { openDoor }: { openDoor: OpenDoor } = await import(module)
const url = await openDoor(JSON.parse(settings) as DoorSettings)
process.send?.(url)
process.on('disconnect', () => process.exit(0))

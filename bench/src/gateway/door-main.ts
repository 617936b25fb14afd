/* The process of one door: opens it, says where, and ends with its parent. */
import type { DoorSettings } from './door.ts'
import { type DoorName, doors } from './door-list.ts'

const [name = '', settings = ''] = process.argv.slice(2)
const { openDoor } = await doors[name as DoorName]()
process.send?.(await openDoor(JSON.parse(settings) as DoorSettings))
process.on('disconnect', () => process.exit(0))

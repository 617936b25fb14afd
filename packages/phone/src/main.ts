import { parseArgs } from 'node:util'
import { openAndroid } from './android/system.ts'
import { hostMain } from './host/host-main.ts'

const { values } = parseArgs({ options: { dir: { type: 'string' }, socket: { type: 'string' } } })
process.exitCode = await hostMain({ dir: values.dir, socketPath: values.socket, openAndroid })

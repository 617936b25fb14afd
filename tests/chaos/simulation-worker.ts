/* A thread of `npm run chaos -- simulation`: plays the batches that it is sent. */
import { parentPort } from 'node:worker_threads'
import { type SimulationRun, simulateMany } from '@cloudphone/saga/simulation/property'

parentPort?.on('message', (run: SimulationRun) => {
  simulateMany(run).then(
    (report) => parentPort?.postMessage(report),
    (error: unknown) => {
      // Ends the thread with this error, and with it the drill.
      setImmediate(() => {
        throw error
      })
    },
  )
})

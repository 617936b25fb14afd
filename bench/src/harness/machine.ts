import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os'

/** What a figure depends on, for the head of a report. */
export function machineFacts(): Record<string, string> {
  const gib = (totalmem() / 1024 ** 3).toFixed(1)
  return {
    machine: `${cpus()[0]?.model ?? 'unknown CPU'}, ${availableParallelism()} cores, ${gib} GiB`,
    system: `${type()} ${release()}, Node ${process.versions.node}`,
    // Above the number of cores, others were at work too and the figures are worse than the machine's own.
    'load before': loadavg()
      .map((value) => value.toFixed(1))
      .join(' '),
  }
}

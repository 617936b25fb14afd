import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** The metrics of one service instance: nothing is global, so two of a service can live in one process. */
export interface Metrics {
  counter<Label extends string = never>(options: {
    name: string
    help: string
    labels?: readonly Label[]
  }): Counter<Label>
  gauge<Label extends string = never>(options: {
    name: string
    help: string
    labels?: readonly Label[]
    /** Asked at each scrape. */
    collect?: (gauge: Gauge<Label>) => Promise<void> | void
  }): Gauge<Label>
  histogram<Label extends string = never>(options: {
    name: string
    help: string
    labels?: readonly Label[]
    /** Upper bounds in seconds. Default 1 ms to 10 s. */
    buckets?: readonly number[]
  }): Histogram<Label>
  /** The text a Prometheus server scrapes. */
  render(): Promise<string>
  readonly contentType: string
}

const defaultBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** Opens the metrics of a service. Asking again for a name that exists returns the same metric. */
export function openMetrics(service: string): Metrics {
  const registry = new Registry()
  registry.setDefaultLabels({ service })
  collectDefaultMetrics({ register: registry })
  return {
    counter: <Label extends string>({
      name,
      help,
      labels = [] as readonly Label[],
    }: {
      name: string
      help: string
      labels?: readonly Label[]
    }) =>
      (registry.getSingleMetric(name) as Counter<Label> | undefined) ??
      new Counter({ name, help, labelNames: [...labels], registers: [registry] }),
    gauge: <Label extends string>({
      name,
      help,
      labels = [] as readonly Label[],
      collect,
    }: {
      name: string
      help: string
      labels?: readonly Label[]
      collect?: (gauge: Gauge<Label>) => Promise<void> | void
    }) =>
      (registry.getSingleMetric(name) as Gauge<Label> | undefined) ??
      new Gauge({
        name,
        help,
        labelNames: [...labels],
        registers: [registry],
        ...(collect && {
          collect(this: Gauge<Label>) {
            return collect(this)
          },
        }),
      }),
    histogram: <Label extends string>({
      name,
      help,
      labels = [] as readonly Label[],
      buckets = defaultBuckets,
    }: {
      name: string
      help: string
      labels?: readonly Label[]
      buckets?: readonly number[]
    }) =>
      (registry.getSingleMetric(name) as Histogram<Label> | undefined) ??
      new Histogram({ name, help, labelNames: [...labels], buckets: [...buckets], registers: [registry] }),
    render: () => registry.metrics(),
    contentType: registry.contentType,
  }
}

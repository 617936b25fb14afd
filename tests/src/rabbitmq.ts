// Where drills have looked for it; the benchmarks start one too.
export { type RabbitNode, startRabbitNode } from '@cloudphone/testing/rabbitmq'

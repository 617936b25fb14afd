import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AdbProtocolError, Command, checksum, encodePacket, type Packet, PacketReader } from './packet.ts'

const aPacket = fc.record({
  command: fc.constantFrom(...Object.values(Command)),
  arg0: fc.nat(0xffffffff),
  arg1: fc.nat(0xffffffff),
  payload: fc.uint8Array({ maxLength: 300 }),
})

function read(chunks: readonly Buffer[], maxPayloadBytes = 1024): Packet[] {
  const packets: Packet[] = []
  const reader = new PacketReader({
    maxPayloadBytes: () => maxPayloadBytes,
    onPacket: (packet) => void packets.push(packet),
  })
  for (const chunk of chunks) reader.push(chunk)
  return packets
}

describe('packets', () => {
  test('come out as they went in, however the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(aPacket),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1 }),
        (sent, cuts) => {
          const bytes = Buffer.concat(
            sent.map(({ command, arg0, arg1, payload }) => encodePacket(command, arg0, arg1, payload)),
          )
          const chunks: Buffer[] = []
          for (let at = 0, n = 0; at < bytes.length; n += 1) {
            const cut = cuts[n % cuts.length]!
            chunks.push(bytes.subarray(at, at + cut))
            at += cut
          }
          const got = read(chunks)
          expect(got.map(({ payload, ...rest }) => ({ ...rest, payload: [...payload] }))).toEqual(
            sent.map(({ payload, ...rest }) => ({
              ...rest,
              payload: [...payload],
              checksum: checksum([payload]),
            })),
          )
        },
      ),
    )
  })

  test('the header is that of protocol.txt', () => {
    const packet = encodePacket(Command.CNXN, 0x01000001, 0x100000, Buffer.from('ab'))
    expect(packet.toString('hex')).toBe(
      ['434e584e', '01000001', '00001000', '02000000', 'c3000000', 'bcb1a7b1', '6162'].join(''),
    )
  })

  test('a wrong magic and a payload too long are refused before anything is set aside', () => {
    const bad = encodePacket(Command.OPEN, 1, 0)
    bad.writeUInt32LE(1, 20)
    expect(() => read([bad])).toThrow(AdbProtocolError)
    const long = encodePacket(Command.OPEN, 1, 0)
    long.writeUInt32LE(1025, 12)
    expect(() => read([long])).toThrow('payload of 1025 bytes, at most 1024')
  })
})

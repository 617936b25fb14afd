import type { AdbKeyRow, DeviceRow } from '../db/schema.ts'

/** A device as the domain hands it to whoever shows it. */
export type DeviceFacts = DeviceRow
/** An adb key as the domain hands it to whoever shows it. */
export type AdbKeyFacts = AdbKeyRow

/** The battery as `dumpsys battery` shows and changes it. A cloud phone is always plugged in unless told otherwise. */
export interface BatteryState {
  readonly level: number
  /** BatteryManager: 2 charging, 3 discharging, 4 not charging, 5 full. */
  readonly status: number
  readonly ac: boolean
  readonly usb: boolean
  readonly wireless: boolean
  readonly present: boolean
  /** Tenths of a degree Celsius. */
  readonly temp: number
  /** Someone said `dumpsys battery set`: updates are stopped. */
  readonly forced: boolean
}

export const FULL_BATTERY: BatteryState = {
  level: 100,
  status: 5,
  ac: true,
  usb: false,
  wireless: false,
  present: true,
  temp: 250,
  forced: false,
}

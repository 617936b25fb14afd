/** An app that comes with the phone. Its window is drawn by `screen/apps`. */
export interface SystemApp {
  readonly packageName: string
  readonly label: string
  readonly activity: string
  /** Where its APK lies on /system. */
  readonly path: string
  readonly glyph: Glyph
  /** Without it the app has no icon on the launcher. */
  readonly launchable: boolean
}

export type Glyph =
  | 'settings'
  | 'browser'
  | 'files'
  | 'camera'
  | 'clock'
  | 'calculator'
  | 'calendar'
  | 'contacts'
  | 'phone'
  | 'messages'
  | 'gallery'
  | 'music'
  | 'none'

export const LAUNCHER = 'com.android.launcher3'
export const SYSTEM_UI = 'com.android.systemui'
const SETTINGS_APP = 'com.android.settings'

const app = (packageName: string, label: string, activity: string, dir: string, glyph: Glyph): SystemApp => ({
  packageName,
  label,
  activity: activity.startsWith('.') ? packageName + activity : activity,
  path: `/system/${dir}/${dir.split('/').at(-1)}.apk`,
  glyph,
  launchable: glyph !== 'none',
})

/** Package names as AOSP has them; only apps whose window is really drawn. */
export const SYSTEM_APPS: readonly SystemApp[] = [
  app('com.android.calculator2', 'Calculator', '.Calculator', 'app/ExactCalculator', 'calculator'),
  app('com.android.camera2', 'Camera', 'com.android.camera.CameraLauncher', 'app/Camera2', 'camera'),
  app('com.android.deskclock', 'Clock', '.DeskClock', 'app/DeskClock', 'clock'),
  app('com.android.documentsui', 'Files', '.files.FilesActivity', 'priv-app/DocumentsUI', 'files'),
  app('com.android.calendar', 'Calendar', '.AllInOneActivity', 'app/Calendar', 'calendar'),
  app('org.chromium.webview_shell', 'Browser', '.WebViewBrowserActivity', 'app/Browser2', 'browser'),
  app(SETTINGS_APP, 'Settings', '.Settings', 'priv-app/Settings', 'settings'),
  app(LAUNCHER, 'Launcher3', '.uioverrides.QuickstepLauncher', 'priv-app/Launcher3', 'none'),
  app(SYSTEM_UI, 'System UI', '.SystemUI', 'priv-app/SystemUI', 'none'),
  app('com.android.shell', 'Shell', '.BugreportWarningActivity', 'priv-app/Shell', 'none'),
  app('android', 'Android System', '.Framework', 'framework/framework-res', 'none'),
]

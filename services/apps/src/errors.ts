import { defineProblems } from '@cloudphone/runtime/problem'

export const problems = defineProblems({
  app_not_found: [404, 'There is no app {appId}.'],
  icon_not_found: [404, 'The app {appId} has no icon in PNG.'],
  installation_not_found: [404, 'There is no installation {installationId}.'],
  device_not_running: [409, 'The phone {deviceId} is {status}; start it first.'],
  app_in_use: [
    409,
    'The app {appId} is being installed on {installations} phone(s); wait until that has ended.',
  ],
  apk_lost: [410, 'The bytes of the app {appId} are lost; upload the same APK again.'],
  apk_too_large: [413, 'The APK is larger than the {limitBytes} bytes allowed here.'],
})

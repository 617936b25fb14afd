import { z } from 'zod'
import { defineEvent } from '../event.ts'
import { AllocationId, AppId, DeviceId, InstallationId, UserId } from '../id.ts'

const InstallFacts = z.object({
  installationId: InstallationId,
  appId: AppId,
  deviceId: DeviceId,
  userId: UserId,
  packageName: z.string(),
})

export const AppInstallRequested = defineEvent({
  name: 'app.install.requested',
  version: 1,
  aggregate: 'installation',
  description: 'A user asked for an app on a phone. The devices service installs it over adb.',
  payload: InstallFacts.extend({
    /** The right under which it was asked: a stale one is refused by the devices service. */
    allocationId: AllocationId.nullable(),
    fence: z.int().nonnegative(),
    versionCode: z.int(),
    sizeBytes: z.int().positive(),
    sha256: z.string(),
  }),
})

export const AppInstallCompleted = defineEvent({
  name: 'app.install.completed',
  version: 1,
  aggregate: 'install_job',
  description: 'The app is on the phone.',
  payload: InstallFacts.extend({ completedAt: z.iso.datetime() }),
})

export const AppInstallFailed = defineEvent({
  name: 'app.install.failed',
  version: 1,
  aggregate: 'install_job',
  description: 'The app could not be installed; the reason is what the phone or the platform said.',
  payload: InstallFacts.extend({ reason: z.string(), failedAt: z.iso.datetime() }),
})

import { defineProblems } from '@cloudphone/runtime/problem'

/** What the scheduler refuses, and why. */
export const problems = defineProblems({
  not_yours: [
    403,
    'The allocation {allocationId} is not yours; touching it needs the permission {permission}.',
  ],
  allocation_not_found: [404, 'There is no allocation {allocationId}.'],
  user_not_found: [404, 'There is no user {userId} in your tenant.'],
  no_device_available: [409, 'No pooled phone of your tenant is free now; {pooled} exist.'],
  illegal_transition: [
    409,
    'The allocation {allocationId} is {status}; only one that is {allowed} can be released.',
  ],
})

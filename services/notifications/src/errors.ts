import { defineProblems } from '@cloudphone/runtime/problem'

export const problems = defineProblems({
  notification_not_found: [404, 'There is no notification {notificationId}.'],
})

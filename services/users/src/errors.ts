import { defineProblems } from '@cloudphone/runtime/problem'

/** What the users service refuses, and why. `invalid_credentials` is the same for an unknown e-mail and a wrong password. */
export const problems = defineProblems({
  invalid_credentials: [401, 'The e-mail or the password is wrong.'],
  invalid_refresh_token: [401, 'The refresh token is unknown, used, expired or revoked; sign in again.'],
  invalid_api_key: [401, 'The API key is unknown, expired or revoked.'],
  user_suspended: [403, 'The account {userId} is suspended.'],
  quota_exceeded: [
    403,
    'The quota of the {whose} {id} does not allow this: of {limit} {resource}, {used} are in use and {asked} more were asked for.',
  ],
  scope_not_held: [403, 'You do not hold {scope} yourself, so no key of yours can.'],
  user_not_found: [404, 'There is no user {userId}.'],
  tenant_not_found: [404, 'There is no tenant {tenantId}.'],
  api_key_not_found: [404, 'There is no API key {apiKeyId} of yours.'],
  session_not_found: [404, 'There is no session {sessionId} that could be ended.'],
  reservation_not_found: [404, 'There is no quota reservation {reservationId}.'],
  rotation_under_way: [409, 'A new signing key is published already and takes over within seconds.'],
  email_taken: [409, 'There is an account with the e-mail {email} already.'],
  reservation_released: [409, 'The quota reservation {reservationId} was released and cannot come back.'],
  reservation_conflict: [409, 'The quota reservation {reservationId} was made with other figures.'],
  weak_password: [422, 'The password is too easy to guess: {reason}.'],
})

import { defineProblems } from '@cloudphone/runtime/problem'

/** Everything this service refuses, in the words a caller reads. */
export const problems = defineProblems({
  device_not_found: [404, 'There is no device {deviceId}.'],
  device_creation_failed: [410, 'The creation of device {deviceId} failed: {reason}'],
  device_forbidden: [403, 'Device {deviceId} belongs to somebody else.'],
  quota_exceeded: [
    403,
    'The quota of the {whose} {id} does not allow this: of {limit} {resource}, {used} are in use and {asked} more were asked for.',
  ],
  quota_unsettled: [
    503,
    'The users service does not answer, and {limit} phones of {userId} wait already for their quota to be settled; try again.',
  ],
  not_allocated: [403, 'Device {deviceId} is pooled: allocate it before you use it.'],
  illegal_transition: [409, 'Device {deviceId} is {deviceStatus}; {operation} needs {allowed}.'],
  operation_in_progress: [409, 'Another operation on device {deviceId} is in progress: {sagaId}.'],
  device_allocated: [409, 'Device {deviceId} is allocated; release allocation {allocationId} first.'],
  device_not_running: [409, 'Device {deviceId} is {deviceStatus}, not RUNNING.'],
  device_not_clean: [409, 'Device {deviceId} is {hygiene}: it must be wiped before anybody gets it.'],
  device_not_pooled: [409, 'Device {deviceId} is dedicated: it has an owner and no allocations.'],
  stale_allocation: [
    409,
    'Fence {fence} for device {deviceId} is stale: the device has fence {currentFence} already.',
  ],
  phone_refused: [422, 'Device {deviceId} refused: {reason}'],
  phone_failed: [502, 'Device {deviceId} did not answer: {reason}'],
  package_not_found: [404, 'Device {deviceId} has no app {packageName}.'],
  file_not_found: [404, 'Device {deviceId} has no {wanted} {path}.'],
  file_too_large: [413, 'A file may have {limitBytes} bytes.'],
  file_is_folder: [409, '{path} of device {deviceId} is a folder: name the file in it.'],
  output_too_large: [413, 'A command may write {limitBytes} bytes; more were not taken.'],
  command_late: [504, 'It took more than {seconds} s and was ended.'],
  visit_over: [403, 'Device {deviceId} is no longer yours to use.'],
  ports_exhausted: [503, 'Node {node} has no free adb port in {first}-{last}.'],
  no_capacity: [503, 'No node has room for {cpuCores} CPU cores and {memoryMB} MB.'],
  adb_keys_pending: [503, 'The adb keys of device {deviceId} could not be replaced in time; try again.'],
  provider_unavailable: [503, 'The provider of device {deviceId} does not answer: {reason}'],
  holder_not_whole: [400, 'A holder is an allocation and a user, or neither.'],
  invalid_adb_key: [400, 'This is not an adb public key: {reason}'],
  too_many_adb_keys: [409, 'You have {limit} adb keys already; delete one first.'],
  adb_key_not_found: [404, 'You have no adb key {adbKeyId}.'],
})

import { expect, test } from 'vitest'
import { corsHeaders, isOrigin } from './cors.ts'

test('an origin that is listed may send credentials, one that is not gets nothing, * never credentials', () => {
  const listed = ['https://console.example.com']
  expect(corsHeaders('https://console.example.com', listed)).toMatchObject({
    'access-control-allow-origin': 'https://console.example.com',
    'access-control-allow-credentials': 'true',
  })
  for (const origin of [
    'https://evil.example',
    'https://console.example.com.evil.example',
    'null',
    '*',
    '',
  ]) {
    expect(corsHeaders(origin, listed)).toBeUndefined()
  }
  expect(corsHeaders('https://any.example', ['*'])).toMatchObject({ 'access-control-allow-origin': '*' })
  expect(corsHeaders('https://any.example', ['*'])).not.toHaveProperty('access-control-allow-credentials')
  expect(corsHeaders('https://any.example', [])).toBeUndefined()
})

test('an origin is written as browsers write it', () => {
  expect(['*', 'https://a.example', 'http://localhost:5173'].every(isOrigin)).toBe(true)
  const wrong = [
    'https://a.example/',
    'https://a.example:443',
    'a.example',
    'ftp://a.example',
    'null',
    'https://A.example',
  ]
  expect(wrong.some(isOrigin)).toBe(false)
})

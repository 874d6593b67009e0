import { expect, it } from 'vitest'
import { chinaClock, chinaDay, formatSpan } from './time'

it('the wall counts days at UTC+8', () => {
  const lastSecond = Date.UTC(2026, 10, 20, 15, 59, 59)
  expect([chinaDay(lastSecond), chinaClock(lastSecond)]).toEqual(['2026-11-20', '23:59:59'])
  expect([chinaDay(lastSecond + 1000), chinaClock(lastSecond + 1000)]).toEqual(['2026-11-21', '00:00:00'])
})

it.each([
  [0, '0 ms'],
  [-3, '0 ms'],
  [99, '99 ms'],
  [400, '0.4 s'],
  [12_000, '12 s'],
  [185_000, '3 min 5 s'],
  [7_620_000, '2 h 7 min'],
  [4 * 86_400_000, '4 d'],
])('span of %s ms', (ms, text) => expect(formatSpan(ms, 'en')).toBe(text))

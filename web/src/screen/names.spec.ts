import { expect, it } from 'vitest'
import { shownName } from './names'

it('names of closed lists are translated, others stay', () => {
  expect(shownName('蔻驰', 'en')).toBe('Coach')
  expect(shownName('蔻驰', 'zh')).toBe('蔻驰')
  expect(shownName('OPPO', 'en')).toBe('OPPO')
})

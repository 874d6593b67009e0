import { expect, it } from 'vitest'
import { cut } from './text'

it('cuts what is too long and says how much is left out', () => {
  expect(cut('abc', 3)).toEqual({ shown: 'abc', left: 0 })
  expect(cut('abcde', 3)).toEqual({ shown: 'abc', left: 2 })
})

import { expect, it } from 'vitest'
import { translate } from '.'
import { en } from './en'
import { zh } from './zh'

const placeholders = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort()

it('both languages have the same keys, none of them empty', () => {
  expect(Object.keys(en).sort()).toEqual(Object.keys(zh).sort())
  for (const text of [...Object.values(en), ...Object.values(zh)]) expect(text.trim()).not.toBe('')
})

it('both languages use the same placeholders', () => {
  for (const key of Object.keys(zh) as (keyof typeof zh)[]) expect(placeholders(en[key]), key).toEqual(placeholders(zh[key]))
})

it('fills placeholders', () => {
  expect(translate('en', 'screen.lag', { span: '0.4 s' })).toBe('lag 0.4 s')
})

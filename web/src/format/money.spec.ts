import { describe, expect, it } from 'vitest'
import { formatCountAxis, formatYuanAxis, formatCount, formatCountShort, formatPermille, formatYuan, formatYuanShort, permille } from './money'

describe('formatYuan is exact', () => {
  it.each([
    [0, '0.00'],
    [5, '0.05'],
    [99, '0.99'],
    [100, '1.00'],
    [1234567, '12,345.67'],
    [-1234567, '-12,345.67'],
    [Number.MAX_SAFE_INTEGER, '90,071,992,547,409.91'],
    [123456789012345678901n, '1,234,567,890,123,456,789.01'],
  ])('%s', (fen, text) => expect(formatYuan(fen)).toBe(text))
})

describe('formatYuanShort', () => {
  it.each([
    [999_999, '9,999.99'],
    [1_000_000, '1.00万'],
    [123_456_789, '123.5万'],
    [12_345_678, '12.35万'],
    [9_999_999_999, '1.00亿'],
    [1_000_000_000_000, '100.0亿'],
    [5_318_012_345, '5,318万'],
    [-12_345_678, '-12.35万'],
  ])('zh %s', (fen, text) => expect(formatYuanShort(fen, 'zh')).toBe(text))

  it.each([
    [99_999, '999.99'],
    [100_000, '1.00K'],
    [12_345_678, '123.5K'],
    [99_999_999, '1.00M'],
    [123_456_789_012, '1.23B'],
  ])('en %s', (fen, text) => expect(formatYuanShort(fen, 'en')).toBe(text))
})

it('axes drop zeros after the point and no others', () => {
  expect([0, 50_000, 100_000_000, 150_000_000, 25_000_000, 1_050].map((fen) => formatYuanAxis(fen, 'zh'))).toEqual(
    ['0', '500', '100万', '150万', '25万', '10.5'],
  )
  expect(formatCountAxis(1500, 'en')).toBe('1.5K')
  expect(formatCountAxis(900, 'en')).toBe('900')
})

it('counts', () => {
  expect(formatCount(1234567)).toBe('1,234,567')
  expect(formatCountShort(10_000, 'zh')).toBe('1.00万')
  expect(formatCountShort(9_999, 'zh')).toBe('9,999')
  expect(formatCountShort(1_500, 'en')).toBe('1.50K')
})

it('shares are computed on integers and have no answer without a whole', () => {
  expect(permille(1, 3)).toBe(333)
  expect(permille(2, 3)).toBe(667)
  expect(permille(-1, 8)).toBe(-125)
  expect(permille(5, 0)).toBeNull()
  expect(formatPermille(333)).toBe('33.3%')
  expect(formatPermille(-5)).toBe('-0.5%')
})

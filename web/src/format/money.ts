// Money is integer fen and stays an integer to the last character on the screen: no division by 100 in floating point.
import type { Language } from '@/i18n'

export type Fen = number | bigint

function groups(digits: string): string {
  return digits.replace(/\B(?=(\d{3})+$)/g, ',')
}

/** `units / 10^places` as text with grouped thousands, exactly. */
function decimal(units: bigint, places: number): string {
  const sign = units < 0n ? '-' : ''
  const digits = (units < 0n ? -units : units).toString().padStart(places + 1, '0')
  const whole = groups(digits.slice(0, digits.length - places))
  return places === 0 ? sign + whole : `${sign}${whole}.${digits.slice(-places)}`
}

/** Division of integers, rounded half away from zero. */
function divideRounded(value: bigint, by: bigint): bigint {
  const half = by / 2n
  return value < 0n ? -((-value + half) / by) : (value + half) / by
}

const UNITS: Record<Language, readonly { size: bigint; name: string }[]> = {
  zh: [
    { size: 10_000n, name: '万' },
    { size: 100_000_000n, name: '亿' },
    { size: 1_000_000_000_000n, name: '万亿' },
  ],
  en: [
    { size: 1_000n, name: 'K' },
    { size: 1_000_000n, name: 'M' },
    { size: 1_000_000_000n, name: 'B' },
    { size: 1_000_000_000_000n, name: 'T' },
  ],
}

/** Short form of `value / 10^places`. From one unit to the next we go after rounding: 9,999.9999万 reads 1.00亿. */
function compact(value: bigint, places: number, language: Language, small: () => string): string {
  const scale = 10n ** BigInt(places)
  const size = value < 0n ? -value : value
  let text: string | null = null
  for (const unit of UNITS[language]) {
    const by = unit.size * scale
    const hundredths = divideRounded(size * 100n, by)
    if (text === null ? size < by : hundredths < 100n) break
    const places = hundredths >= 100_000n ? 0 : hundredths >= 10_000n ? 1 : 2
    text = decimal(divideRounded(size * 10n ** BigInt(places), by), places) + unit.name
  }
  return text === null ? small() : (value < 0n ? '-' : '') + text
}

/** `1234567` fen reads `12,345.67`. */
export function formatYuan(fen: Fen): string {
  return decimal(BigInt(fen), 2)
}

/** Short form with 万/亿 or K/M/B; below the first unit the exact amount. */
export function formatYuanShort(fen: Fen, language: Language): string {
  return compact(BigInt(fen), 2, language, () => formatYuan(fen))
}

/** For axes, whose values are round: the short form without zeros at the end. */
export function formatYuanAxis(fen: number, language: Language): string {
  return withoutZeros(formatYuanShort(Math.round(fen), language))
}

/** A count of anything, grouped. */
export function formatCount(count: number | bigint): string {
  return decimal(BigInt(count), 0)
}

export function formatCountShort(count: number | bigint, language: Language): string {
  return compact(BigInt(count), 0, language, () => formatCount(count))
}

export function formatCountAxis(count: number, language: Language): string {
  return withoutZeros(formatCountShort(Math.round(count), language))
}

function withoutZeros(text: string): string {
  return text.replace(/\.(\d*?)0+(?!\d)/, (_, kept: string) => (kept === '' ? '' : `.${kept}`))
}

/** `part` of `whole` in tenths of a percent; null when there is no whole to compare with. */
export function permille(part: Fen, whole: Fen): number | null {
  const base = BigInt(whole)
  return base === 0n ? null : Number(divideRounded(BigInt(part) * 1000n, base))
}

/** `123` reads `12.3%`. */
export function formatPermille(value: number): string {
  return `${decimal(BigInt(value), 1)}%`
}

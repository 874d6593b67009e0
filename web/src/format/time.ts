// The wall shows the business time of the orders, UTC+8, wherever the browser stands; app pages show the reader's time.
import type { Language } from '@/i18n'

export const MINUTE_MS = 60_000
export const HOUR_MS = 60 * MINUTE_MS
export const DAY_MS = 24 * HOUR_MS
export const CHINA_OFFSET_MS = 8 * HOUR_MS

const LOCALES: Record<Language, string> = { zh: 'zh-CN', en: 'en-GB' }

const china = (ms: number) => new Date(ms + CHINA_OFFSET_MS).toISOString()

/** `18:25:31` at UTC+8. */
export const chinaClock = (ms: number) => china(ms).slice(11, 19)

/** `18:25` at UTC+8. */
export const chinaMinute = (ms: number) => china(ms).slice(11, 16)

/** `2026-11-20` at UTC+8. */
export const chinaDay = (ms: number) => china(ms).slice(0, 10)

/** The day with its weekday, as the clock of the wall shows it. */
export function chinaDate(ms: number, language: Language): string {
  return new Intl.DateTimeFormat(LOCALES[language], {
    timeZone: 'Asia/Shanghai',
    year: 'numeric',
    month: 'long',
    day: 'numeric',
    weekday: 'long',
  }).format(ms)
}

/** Date and time of the reader's own zone. */
export function localTime(ms: number, language: Language): string {
  return new Intl.DateTimeFormat(LOCALES[language], {
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hour12: false,
  }).format(ms)
}

const SPANS: Record<Language, { day: string; hour: string; minute: string; second: string; milli: string }> = {
  zh: { day: ' 天', hour: ' 小时', minute: ' 分', second: ' 秒', milli: ' 毫秒' },
  en: { day: ' d', hour: ' h', minute: ' min', second: ' s', milli: ' ms' },
}

/** A length of time in the one or two units that matter: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 7 min`, `4 d 3 h`. */
export function formatSpan(ms: number, language: Language): string {
  const unit = SPANS[language]
  const seconds = Math.floor(ms / 1000)
  if (ms < 100) return `${Math.max(0, Math.round(ms))}${unit.milli}`
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)}${unit.second}`
  if (seconds < 60) return `${seconds}${unit.second}`
  if (seconds < 3600) return two(seconds, 60, unit.minute, 1, unit.second)
  if (seconds < 86_400) return two(seconds, 3600, unit.hour, 60, unit.minute)
  return two(seconds, 86_400, unit.day, 3600, unit.hour)
}

function two(seconds: number, big: number, bigName: string, small: number, smallName: string): string {
  const rest = Math.floor((seconds % big) / small)
  const head = `${Math.floor(seconds / big)}${bigName}`
  return rest === 0 ? head : `${head} ${rest}${smallName}`
}

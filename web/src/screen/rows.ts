// From live tables to what the wall draws. Pure functions: each takes the rows of one table and returns a series.
import type { GenderWindow, OrderMinute, OrderTotal } from '@/screen/tables'
import { HOUR_MS, MINUTE_MS } from '@/format/time'
import type { Rows } from '@/live/rows'

/** The newest day there is; its rows are what the wall shows. */
export function newestDay(total: Rows<OrderTotal>): string | null {
  let newest: string | null = null
  for (const day of total.keys()) if (newest === null || day > newest) newest = day
  return newest
}

/** Rows of a day-keyed table (`day/...`) that belong to this day, in the order of `compare`. */
export function rowsOfDay<T>(rows: Rows<T>, day: string | null, compare: (a: T, b: T) => number): T[] {
  const found: T[] = []
  for (const [key, value] of rows) if (day !== null && key.startsWith(`${day}/`)) found.push(value)
  return found.sort(compare)
}

export const bySales = (a: { fen: number }, b: { fen: number }) => b.fen - a.fen

/** The last `hours` up to the newest minute; minutes without a sale have no row and count as zero. */
export function minuteSeries(rows: Rows<OrderMinute>, hours: number): OrderMinute[] {
  const byMinute = new Map<number, OrderMinute>()
  let newest = -Infinity
  let oldest = Infinity
  for (const row of rows.values()) {
    byMinute.set(row.minute_ms, row)
    newest = Math.max(newest, row.minute_ms)
    oldest = Math.min(oldest, row.minute_ms)
  }
  const series: OrderMinute[] = []
  const first = Math.max(oldest, newest - hours * HOUR_MS + MINUTE_MS)
  for (let at = first; at <= newest; at += MINUTE_MS) {
    series.push(byMinute.get(at) ?? { minute_ms: at, fen: 0, quantity: 0, orders: 0, late: 0 })
  }
  return series
}

export const MALE = '男'
export const FEMALE = '女'
export const TEN_MINUTES_MS = 10 * MINUTE_MS

export interface GenderBars {
  windows: number[]
  male: number[]
  female: number[]
}

/** Sales of the last `hours` in 10-minute windows, gaps as zero. */
export function genderBars(rows: Rows<GenderWindow>, hours: number): GenderBars {
  const sales = new Map<string, number>()
  let newest = -Infinity
  let oldest = Infinity
  for (const row of rows.values()) {
    sales.set(`${row.window_ms}/${row.gender}`, row.fen)
    newest = Math.max(newest, row.window_ms)
    oldest = Math.min(oldest, row.window_ms)
  }
  const bars: GenderBars = { windows: [], male: [], female: [] }
  const first = Math.max(oldest, newest - hours * HOUR_MS + TEN_MINUTES_MS)
  for (let at = first; at <= newest; at += TEN_MINUTES_MS) {
    bars.windows.push(at)
    bars.male.push(sales.get(`${at}/${MALE}`) ?? 0)
    bars.female.push(sales.get(`${at}/${FEMALE}`) ?? 0)
  }
  return bars
}

export function lastHours(bars: GenderBars, hours: number): GenderBars {
  const from = -hours * 6
  return { windows: bars.windows.slice(from), male: bars.male.slice(from), female: bars.female.slice(from) }
}

/** A watermark this far behind the newest event, or a result this old, is no longer fresh. */
export const STALE_MS = 15_000

export interface Freshness {
  eventTimeMs: number | null
  lagMs: number | null
  state: 'ok' | 'stale' | 'none'
}

/**
 * How far the shown numbers are behind the world. The lag at computation is measured by the job's own clock; what has
 * passed since (`ageMs`) by the browser's, so two clocks are never compared with each other.
 */
export function freshness(total: OrderTotal | undefined, ageMs: number): Freshness {
  if (!total || total.event_time_ms === null) return { eventTimeMs: null, lagMs: null, state: 'none' }
  const behind = total.watermark_ms === null ? Infinity : total.event_time_ms - total.watermark_ms
  return {
    eventTimeMs: total.event_time_ms,
    lagMs: Math.max(0, total.computed_ms - total.event_time_ms) + ageMs,
    state: behind > STALE_MS || ageMs > STALE_MS ? 'stale' : 'ok',
  }
}

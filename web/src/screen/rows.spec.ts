import { describe, expect, it } from 'vitest'
import type { GenderWindow, OrderMinute, OrderTotal } from '@/screen/tables'
import { MINUTE_MS } from '@/format/time'
import { bySales, freshness, genderBars, minuteSeries, newestDay, rowsOfDay, STALE_MS, TEN_MINUTES_MS } from './rows'

const minute = (at: number, fen: number): [string, OrderMinute] => [
  String(at).padStart(13, '0'),
  { minute_ms: at, fen, quantity: 1, orders: 1, late: 0 },
]

it('shows the newest day, whatever order the rows came in', () => {
  const total = (day: string) => [day, {}] as [string, OrderTotal]
  expect(newestDay(new Map([total('2026-11-20'), total('2026-11-21'), total('2026-09-30')]))).toBe('2026-11-21')
  expect(newestDay(new Map())).toBeNull()
})

it('keeps days apart', () => {
  const rows = new Map([
    ['2026-11-20/数码', { fen: 1 }],
    ['2026-11-21/美食', { fen: 2 }],
    ['2026-11-21/数码', { fen: 3 }],
  ])
  expect(rowsOfDay(rows, '2026-11-21', bySales)).toEqual([{ fen: 3 }, { fen: 2 }])
  expect(rowsOfDay(rows, null, bySales)).toEqual([])
})

describe('minuteSeries', () => {
  it('fills minutes without sales with zero', () => {
    const series = minuteSeries(new Map([minute(3 * MINUTE_MS, 7), minute(0, 5)]), 1)
    expect(series.map(({ fen }) => fen)).toEqual([5, 0, 0, 7])
  })
  it('goes back from the newest minute, not from the first', () => {
    const series = minuteSeries(new Map([minute(0, 1), minute(90 * MINUTE_MS, 2)]), 1)
    expect(series).toHaveLength(60)
    expect(series[0].minute_ms).toBe(31 * MINUTE_MS)
  })
  it('is empty without rows', () => expect(minuteSeries(new Map(), 24)).toEqual([]))
})

it('pairs the genders of each 10-minute window', () => {
  const row = (at: number, gender: string, fen: number): [string, GenderWindow] => [
    `${at}/${gender}`,
    { window_ms: at, gender, fen, quantity: 1 },
  ]
  const bars = genderBars(new Map([row(0, '男', 3), row(2 * TEN_MINUTES_MS, '女', 4)]), 3)
  expect(bars).toEqual({ windows: [0, TEN_MINUTES_MS, 2 * TEN_MINUTES_MS], male: [3, 0, 0], female: [0, 0, 4] })
})

describe('freshness', () => {
  const total = { event_time_ms: 100_000, watermark_ms: 97_000, computed_ms: 100_400 } as OrderTotal
  it('adds what passed since the computation', () => {
    expect(freshness(total, 0)).toEqual({ eventTimeMs: 100_000, lagMs: 400, state: 'ok' })
    expect(freshness(total, 600).lagMs).toBe(1000)
  })
  it('is stale when results stop or the watermark stands', () => {
    expect(freshness(total, STALE_MS + 1).state).toBe('stale')
    expect(freshness({ ...total, watermark_ms: 100_000 - STALE_MS - 1 }, 0).state).toBe('stale')
    expect(freshness({ ...total, watermark_ms: null }, 0).state).toBe('stale')
  })
  it('knows nothing before the first event', () => expect(freshness(undefined, 0).state).toBe('none'))
})

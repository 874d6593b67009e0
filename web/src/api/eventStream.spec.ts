import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { EventStream, POLL_MS, SILENCE_LIMIT_MS, type StreamStatus } from './eventStream'

/** A browser EventSource whose network we play by hand. */
class FakeSource {
  static all: FakeSource[] = []
  readyState = 0
  onopen: (() => void) | null = null
  onerror: (() => void) | null = null
  private listeners = new Map<string, (event: { data: string }) => void>()
  constructor() {
    FakeSource.all.push(this)
  }
  addEventListener(type: string, listener: (event: { data: string }) => void) {
    this.listeners.set(type, listener)
  }
  emit(type: string, data: unknown) {
    this.listeners.get(type)?.({ data: JSON.stringify(data) })
  }
  fail(readyState: number) {
    this.readyState = readyState
    this.onerror?.()
  }
  close() {
    this.readyState = 2
  }
}

function start(poll?: () => Promise<() => void>) {
  const events: unknown[] = []
  const statuses: StreamStatus[] = []
  const stream = new EventStream({
    url: '/events',
    types: ['delta'],
    onEvent: (_, data) => events.push(data),
    onStatus: (status) => statuses.push(status),
    open: () => new FakeSource() as unknown as EventSource,
    poll,
  })
  return { stream, events, statuses }
}

beforeEach(() => {
  FakeSource.all = []
  vi.useFakeTimers()
})
afterEach(() => vi.useRealTimers())

it('hands on events and is live after the first', () => {
  const { events, statuses } = start()
  FakeSource.all[0].emit('delta', { n: 1 })
  expect(events).toEqual([{ n: 1 }])
  expect(statuses).toEqual(['live'])
})

it('polls while the browser reconnects and stops when the stream is back', async () => {
  const poll = vi.fn(async () => () => {})
  const { statuses } = start(poll)
  const source = FakeSource.all[0]
  source.onopen?.()
  source.fail(0)
  await vi.advanceTimersByTimeAsync(2 * POLL_MS)
  expect(poll).toHaveBeenCalledTimes(3)
  source.onopen?.()
  await vi.advanceTimersByTimeAsync(5 * POLL_MS)
  expect(poll).toHaveBeenCalledTimes(3)
  expect(statuses).toEqual(['live', 'reconnecting', 'live'])
  expect(FakeSource.all).toHaveLength(1)
})

it('throws away a poll answer that arrives after the stream is back', async () => {
  const applied = vi.fn()
  let answer: (apply: () => void) => void = () => {}
  start(() => new Promise((resolve) => (answer = resolve)))
  FakeSource.all[0].fail(0)
  FakeSource.all[0].emit('delta', {})
  answer(applied)
  await vi.advanceTimersByTimeAsync(0)
  expect(applied).not.toHaveBeenCalled()
})

it('opens a new stream, later each time, when the browser gave up', async () => {
  start()
  FakeSource.all[0].fail(2)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(FakeSource.all).toHaveLength(2)
  FakeSource.all[1].fail(2)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(FakeSource.all).toHaveLength(2)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(FakeSource.all).toHaveLength(3)
})

it('opens a new stream when nothing is heard, and heartbeats count as a word', async () => {
  start()
  await vi.advanceTimersByTimeAsync(SILENCE_LIMIT_MS - 1)
  FakeSource.all[0].emit('heartbeat', {})
  await vi.advanceTimersByTimeAsync(SILENCE_LIMIT_MS - 1)
  expect(FakeSource.all).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(1)
  expect(FakeSource.all).toHaveLength(2)
})

it('does nothing more after close', async () => {
  const poll = vi.fn(async () => () => {})
  const { stream } = start(poll)
  FakeSource.all[0].fail(2)
  await vi.advanceTimersByTimeAsync(0)
  stream.close()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(FakeSource.all).toHaveLength(1)
  expect(poll).toHaveBeenCalledTimes(1)
})

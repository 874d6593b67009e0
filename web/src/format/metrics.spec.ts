import { expect, test } from 'vitest'
import type { Vertex } from '@/api/types'
import { metricLines, sourceFacts } from './metrics'

const nothing = { pending_records: null, fetch_lag_ms: null, emit_lag_ms: null, watermark_lag_ms: null, source_idle_ms: null }

test('a source shows what it knows, and others nothing', () => {
  expect(sourceFacts(nothing as Vertex)).toEqual([])
  const facts = sourceFacts({ ...nothing, pending_records: 7, emit_lag_ms: 40, source_idle_ms: 75_400 } as Vertex)
  expect(facts.map((fact) => `${fact.text} ${fact.value}`)).toEqual([
    'vertex.pending 7',
    'vertex.emitLag 40 ms',
    'vertex.idle 75 s',
  ])
})

test('totals are added up, other values stand side by side', () => {
  const metrics = [
    { name: 'numBytesIn', subtask: 1, kind: 'counter', count: 5 },
    { name: 'offset', subtask: 1, kind: 'gauge', value: -1 },
    { name: 'numBytesIn', subtask: 0, kind: 'counter', count: 6 },
    { name: 'offset', subtask: 0, kind: 'gauge', value: 3.5 },
    { name: 'sizes', subtask: 0, kind: 'histogram', count: 2, p50: 1, p99: 9 },
  ]
  expect(metricLines(metrics)).toEqual([
    { name: 'numBytesIn', value: '11' },
    { name: 'offset', value: '3.5 · -1' },
    { name: 'sizes', value: 'p50 1, p99 9' },
  ])
  // A server of an earlier version sends none.
  expect(metricLines(undefined)).toEqual([])
})

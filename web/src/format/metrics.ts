// What a vertex says of itself beside its counters, as words for the page.
import type { Vertex } from '@/api/types'
import type { Key } from '@/i18n'
import { formatCount } from './money'

type Metric = Vertex['operators'][number]['metrics'][number]

/** Milliseconds as people read them. */
function span(ms: number): string {
  return ms < 10_000 ? `${formatCount(ms)} ms` : `${formatCount(Math.round(ms / 1000))} s`
}

/** The numbers only sources have; those that are not known are left out. */
export function sourceFacts(vertex: Vertex): { text: Key; value: string }[] {
  const facts: [Key, number | null, (value: number) => string][] = [
    ['vertex.pending', vertex.pending_records, formatCount],
    ['vertex.fetchLag', vertex.fetch_lag_ms, span],
    ['vertex.emitLag', vertex.emit_lag_ms, span],
    ['vertex.watermarkLag', vertex.watermark_lag_ms, span],
    ['vertex.idle', vertex.source_idle_ms, span],
  ]
  return facts.flatMap(([text, value, shown]) => (typeof value === 'number' ? [{ text, value: shown(value) }] : []))
}

/** One line a name: totals are added up over the subtasks, other values stand side by side in the order of the subtasks. */
export function metricLines(metrics: Metric[] | undefined): { name: string; value: string }[] {
  const byName = new Map<string, Metric[]>()
  for (const metric of metrics ?? []) byName.set(metric.name, [...(byName.get(metric.name) ?? []), metric])
  return [...byName].map(([name, all]) => {
    if (all.every((metric) => metric.kind === 'counter' || metric.kind === 'meter')) {
      return { name, value: formatCount(all.reduce((sum, metric) => sum + (metric.count ?? 0), 0)) }
    }
    const shown = (metric: Metric) =>
      metric.kind === 'histogram' ? `p50 ${metric.p50}, p99 ${metric.p99}` : String(metric.value ?? metric.count ?? '—')
    return { name, value: all.toSorted((a, b) => a.subtask - b.subtask).map(shown).join(' · ') }
  })
}

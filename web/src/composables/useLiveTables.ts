// Live tables kept up to date by one event stream. Each table is a shallow ref that is triggered, not copied, on a
// change: a table of a day's minutes has 1440 rows and changes several times a second.
import { shallowRef, triggerRef, type Ref, type ShallowRef } from 'vue'
import { api, ApiError, type LiveQuery } from '@/api/client'
import type { StreamStatus } from '@/api/eventStream'
import type { LiveChange, LiveEvent } from '@/api/types'
import { applyDelta, fromSnapshot, type Rows } from '@/live/rows'
import { useEventStream } from './useEventStream'

/** The most rows the server gives in one answer; without it, it gives a thousand. */
const ROWS_MAX = 100_000

export interface LiveTables<T> {
  tables: { [K in keyof T]: ShallowRef<Rows<T[K]>> }
  status: Ref<StreamStatus>
  /** False until the first rows, or the first certainty that there are none. */
  loaded: Ref<boolean>
}

interface Options<K> {
  fps: number
  /** Narrows what the REST fallback asks for; the stream itself carries whole tables. */
  pollQuery?: (table: K) => LiveQuery
  onChange?: (table: K, kind: 'snapshot' | 'delta') => void
}

export function useLiveTables<T extends object>(
  names: readonly (keyof T & string)[],
  { fps, pollQuery, onChange }: Options<keyof T & string>,
): LiveTables<T> {
  type Name = keyof T & string
  const tables = Object.fromEntries(
    names.map((name) => [name, shallowRef<Rows<T[Name]>>(new Map())]),
  ) as LiveTables<T>['tables']
  const loaded = shallowRef(false)

  function receive(kind: 'snapshot' | 'delta', name: Name, rows: LiveChange[]) {
    const table = tables[name]
    if (!table) return
    if (kind === 'snapshot') {
      table.value = fromSnapshot(rows)
    } else {
      applyDelta(table.value, rows)
      triggerRef(table)
    }
    loaded.value = true
    onChange?.(name, kind)
  }

  const status = useEventStream(api.liveEvents(names, fps), {
    types: ['snapshot', 'delta'],
    onEvent: (type, data) => {
      const { table, rows } = data as LiveEvent
      receive(type as 'snapshot' | 'delta', table as Name, rows)
    },
    poll: async () => {
      const answers = await Promise.all(names.map((name) => rowsOrNone(name, pollQuery?.(name))))
      return () => answers.forEach((rows, at) => receive('snapshot', names[at], rows))
    },
  })
  return { tables, status, loaded }
}

/** A table that no job has written yet is an empty table. */
async function rowsOrNone(name: string, query?: LiveQuery): Promise<LiveChange[]> {
  try {
    return (await api.liveRows(name, { ...query, limit: ROWS_MAX })).rows
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return []
    throw error
  }
}

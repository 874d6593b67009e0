// Live tables kept up to date by one event stream. Each table is a shallow ref that is triggered, not copied, on a
// change: a table of a day's minutes has 1440 rows and changes several times a second.
import { shallowRef, triggerRef, type Ref, type ShallowRef } from 'vue'
import { api, type LiveQuery } from '@/api/client'
import type { StreamStatus } from '@/api/eventStream'
import type { LiveMessage } from '@/api/types'
import { applyDelta, fromSnapshot, type Rows } from '@/live/rows'
import { useEventStream } from './useEventStream'

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

  function receive(kind: 'snapshot' | 'delta', message: LiveMessage) {
    const name = message.table as Name
    const table = tables[name]
    if (!table) return
    if (kind === 'snapshot') {
      table.value = fromSnapshot(message.rows)
    } else {
      applyDelta(table.value, message.rows)
      triggerRef(table)
    }
    loaded.value = true
    onChange?.(name, kind)
  }

  const status = useEventStream(api.liveEvents(names, fps), {
    types: ['snapshot', 'delta'],
    onEvent: (type, data) => receive(type as 'snapshot' | 'delta', data as LiveMessage),
    poll: async () => {
      const answers = await Promise.all(names.map((name) => api.liveRows(name, pollQuery?.(name))))
      return () => answers.forEach(({ name, version, rows }) => receive('snapshot', { table: name, version, rows }))
    },
  })
  return { tables, status, loaded }
}

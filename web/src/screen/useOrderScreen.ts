// What the wall shows, from one event stream over the live tables of the order job.
import { computed, ref, type ComputedRef } from 'vue'
import type { LiveQuery } from '@/api/client'
import type { OrderTables, OrderTotal } from '@/screen/tables'
import { useLiveTables } from '@/composables/useLiveTables'
import { useNow } from '@/composables/useNow'
import { DAY_MS } from '@/format/time'
import { bySales, freshness, genderBars, minuteSeries, newestDay, rowsOfDay } from './rows'

const HISTORY_HOURS = 24
const TABLES: readonly (keyof OrderTables)[] = [
  'orders.total',
  'orders.minute',
  'orders.category',
  'orders.brand',
  'orders.user',
  'orders.gender',
  'orders.gender_10min',
  'orders.province',
]
/** Tables whose keys are times: the fallback asks for the last day only. */
const KEYED_BY_TIME: readonly (keyof OrderTables)[] = ['orders.minute', 'orders.gender_10min']

export function useOrderScreen() {
  const now = useNow()
  /** When the total last arrived and how old it already was then. */
  const received = ref({ at: Date.now(), age: 0 })

  const { tables, status, loaded } = useLiveTables<OrderTables>(TABLES, {
    fps: 2,
    pollQuery: (table): LiveQuery =>
      KEYED_BY_TIME.includes(table) && newestTime.value !== null
        ? { from: String(newestTime.value - DAY_MS).padStart(13, '0') }
        : {},
    onChange: (table, kind) => {
      if (table !== 'orders.total') return
      const computedMs = total.value?.computed_ms ?? Date.now()
      received.value = { at: Date.now(), age: kind === 'snapshot' ? Math.max(0, Date.now() - computedMs) : 0 }
    },
  })

  const day = computed(() => newestDay(tables['orders.total'].value))
  const total: ComputedRef<OrderTotal | undefined> = computed(() => (day.value === null ? undefined : tables['orders.total'].value.get(day.value)))
  const newestTime = computed(() => total.value?.event_time_ms ?? null)
  const fresh = computed(() =>
    freshness(total.value, received.value.age + Math.max(0, now.value - received.value.at)),
  )
  const minutes = computed(() => minuteSeries(tables['orders.minute'].value, HISTORY_HOURS))
  const categories = computed(() => rowsOfDay(tables['orders.category'].value, day.value, bySales))
  const brands = computed(() => rowsOfDay(tables['orders.brand'].value, day.value, bySales))
  const users = computed(() => rowsOfDay(tables['orders.user'].value, day.value, (a, b) => a.rank - b.rank))
  const genders = computed(() => rowsOfDay(tables['orders.gender'].value, day.value, bySales))
  const windows = computed(() => genderBars(tables['orders.gender_10min'].value, HISTORY_HOURS))
  const provinces = computed(() => rowsOfDay(tables['orders.province'].value, day.value, bySales))

  return { status, loaded, fresh, total, minutes, categories, brands, users, genders, windows, provinces }
}

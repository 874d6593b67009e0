// How a live table is kept in the browser: a Map by key that snapshots replace and deltas change in place.
import type { LiveChange } from '@/api/types'

export type Rows<T> = Map<string, T>

export function fromSnapshot<T>(rows: readonly LiveChange[]): Rows<T> {
  const table: Rows<T> = new Map()
  applyDelta(table, rows)
  return table
}

export function applyDelta<T>(table: Rows<T>, rows: readonly LiveChange[]): void {
  for (const { key, value } of rows) {
    if (value === null) table.delete(key)
    else table.set(key, value as T)
  }
}

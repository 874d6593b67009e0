// A live table as columns and rows of text: values may be objects, then each field is a column, or anything else.
import type { Rows } from './rows'

export interface TableView {
  columns: string[]
  rows: { key: string; cells: Record<string, string> }[]
  /** Rows that match the filter but stand beyond the limit. */
  hidden: number
}

const VALUE = 'value'

export function tableView(table: Rows<unknown>, filter: string, limit: number): TableView {
  const keys = [...table.keys()].filter((key) => key.includes(filter)).sort().reverse()
  const columns = new Set<string>()
  const rows = keys.slice(0, limit).map((key) => {
    const value = table.get(key)
    const fields = isObject(value) ? value : { [VALUE]: value }
    const cells: Record<string, string> = {}
    for (const [name, field] of Object.entries(fields)) {
      columns.add(name)
      cells[name] = text(field)
    }
    return { key, cells }
  })
  return { columns: [...columns], rows, hidden: keys.length - rows.length }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function text(field: unknown): string {
  if (field === null || field === undefined) return '—'
  return typeof field === 'object' ? JSON.stringify(field) : String(field)
}

import { expect, it } from 'vitest'
import { tableView } from './tableView'

it('makes a column of each field, newest keys first', () => {
  const table = new Map<string, unknown>([
    ['a', { x: 1, y: null }],
    ['b', { x: 2, z: [1] }],
  ])
  expect(tableView(table, '', 10)).toEqual({
    columns: ['x', 'z', 'y'],
    rows: [
      { key: 'b', cells: { x: '2', z: '[1]' } },
      { key: 'a', cells: { x: '1', y: '—' } },
    ],
    hidden: 0,
  })
})

it('shows plain values and counts what the limit hides', () => {
  const table = new Map<string, unknown>([['k1', 1], ['k2', 'two'], ['other', 3]])
  expect(tableView(table, 'k', 1)).toEqual({ columns: ['value'], rows: [{ key: 'k2', cells: { value: 'two' } }], hidden: 1 })
})

import { expect, it } from 'vitest'
import { applyDelta, fromSnapshot } from './rows'

it('a delta changes, adds and deletes rows and leaves the others alone', () => {
  const table = fromSnapshot<number>([
    { key: 'a', value: 1 },
    { key: 'b', value: 2 },
    { key: 'c', value: 3 },
  ])
  applyDelta(table, [
    { key: 'b', value: null },
    { key: 'c', value: 30 },
    { key: 'd', value: 4 },
  ])
  expect([...table]).toEqual([['a', 1], ['c', 30], ['d', 4]])
})

it('deleting a row that is not there changes nothing', () => {
  const table = fromSnapshot<number>([{ key: 'a', value: 1 }])
  applyDelta(table, [{ key: 'x', value: null }])
  expect([...table]).toEqual([['a', 1]])
})

it('the same delta twice gives the same table', () => {
  const table = fromSnapshot<number>([])
  const delta = [{ key: 'a', value: 0 }, { key: 'b', value: 5 }]
  applyDelta(table, delta)
  applyDelta(table, delta)
  expect([...table]).toEqual([['a', 0], ['b', 5]])
})

import { expect, it } from 'vitest'
import type { Vertex } from '@/api/types'
import { layoutGraph, load, NODE_WIDTH } from './layout'

const vertex = (id: string, busy = 0, backpressured = 0) =>
  ({ id, name: id, busy_ratio: busy, backpressured_ratio: backpressured }) as Vertex

it('draws from left to right without overlap and keeps parallel edges apart by id', () => {
  const { vertices, edges, width } = layoutGraph(
    [vertex('a'), vertex('b'), vertex('c')],
    [
      { from: 'a', to: 'b', ship: 'HASH' },
      { from: 'a', to: 'b', ship: 'BROADCAST' },
      { from: 'b', to: 'c', ship: 'FORWARD' },
    ],
  )
  const [a, b, c] = vertices.map(({ x }) => x)
  expect(b - a).toBeGreaterThan(NODE_WIDTH)
  expect(c - b).toBeGreaterThan(NODE_WIDTH)
  expect(width).toBeGreaterThan(c + NODE_WIDTH)
  expect(new Set(edges.map(({ id }) => id)).size).toBe(3)
  for (const { path } of edges) expect(path).toMatch(/^M[\d.]+ [\d.]+/)
})

it('leaves out edges to vertices that are not listed, and takes an empty job', () => {
  expect(layoutGraph([vertex('a')], [{ from: 'a', to: 'gone', ship: 'HASH' }]).edges).toEqual([])
  expect(layoutGraph([], []).vertices).toEqual([])
})

it('backpressure counts before busyness', () => {
  expect(load(vertex('a', 0.9, 0.6))).toBe('backpressured')
  expect(load(vertex('a', 0.9))).toBe('busy')
  expect(load(vertex('a', 0.5))).toBe('warm')
  expect(load(vertex('a', 0.1))).toBe('calm')
})

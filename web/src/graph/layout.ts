// Places the vertices of a job from left to right and routes the edges between them.
import { graphlib, layout as place } from '@dagrejs/dagre'
import type { Edge, Vertex } from '@/api/types'

export const NODE_WIDTH = 268
export const NODE_HEIGHT = 132
const MARGIN = 20

export interface PlacedVertex {
  vertex: Vertex
  x: number
  y: number
}

export interface PlacedEdge {
  id: string
  ship: string
  path: string
  labelX: number
  labelY: number
}

export interface Layout {
  width: number
  height: number
  vertices: PlacedVertex[]
  edges: PlacedEdge[]
}

export function layoutGraph(vertices: Vertex[], edges: Edge[]): Layout {
  const graph = new graphlib.Graph({ multigraph: true })
  graph.setGraph({ rankdir: 'LR', nodesep: 28, ranksep: 96, marginx: MARGIN, marginy: MARGIN })
  graph.setDefaultEdgeLabel(() => ({}))
  const known = new Set(vertices.map((vertex) => vertex.id))
  const drawn = edges.filter((edge) => known.has(edge.from) && known.has(edge.to))
  for (const vertex of vertices) graph.setNode(vertex.id, { width: NODE_WIDTH, height: NODE_HEIGHT })
  drawn.forEach((edge, index) => graph.setEdge(edge.from, edge.to, { width: 76, height: 18, labelpos: 'c' }, String(index)))
  place(graph)
  const size = graph.graph()
  const middle = (id: string) => graph.node(id)
  return {
    width: size.width ?? 0,
    height: size.height ?? 0,
    vertices: vertices.map((vertex) => {
      const { x, y } = graph.node(vertex.id)
      return { vertex, x: x - NODE_WIDTH / 2, y: y - NODE_HEIGHT / 2 }
    }),
    edges: drawn.map((edge, index) => {
      const { points, x, y } = graph.edge(edge.from, edge.to, String(index))
      const start = { x: middle(edge.from).x + NODE_WIDTH / 2, y: middle(edge.from).y }
      const end = { x: middle(edge.to).x - NODE_WIDTH / 2, y: middle(edge.to).y }
      return {
        id: `${edge.from}-${edge.to}-${index}`,
        ship: edge.ship,
        path: curve([start, ...points.slice(1, -1), end]),
        labelX: x ?? 0,
        labelY: y ?? 0,
      }
    }),
  }
}

/** A line that leaves, passes and arrives horizontally, so it meets vertices at the middle of their sides. */
function curve(points: { x: number; y: number }[]): string {
  return points
    .map(({ x, y }, at) => {
      if (at === 0) return `M${x} ${y}`
      const before = points[at - 1]
      const bend = (before.x + x) / 2
      return `C${bend} ${before.y} ${bend} ${y} ${x} ${y}`
    })
    .join('')
}

/** What a vertex is limited by: waiting for those after it, or busy itself. */
export function load(vertex: Vertex): 'backpressured' | 'busy' | 'warm' | 'calm' {
  if (vertex.backpressured_ratio >= 0.5) return 'backpressured'
  if (vertex.busy_ratio >= 0.8) return 'busy'
  return vertex.busy_ratio >= 0.4 ? 'warm' : 'calm'
}

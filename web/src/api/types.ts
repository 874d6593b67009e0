// The server's JSON, as docs/reference/rest.md and docs/reference/order-screen.md describe it.

export type JobState = 'CREATED' | 'RUNNING' | 'RESTARTING' | 'FINISHED' | 'CANCELED' | 'SUSPENDED' | 'FAILED'

export interface JobSummary {
  id: string
  name: string
  state: JobState
  start_ms: number
  end_ms: number | null
  parallelism: number
  restarts: number
  records_in_per_s: number
  records_out_per_s: number
  lag_records: number | null
  watermark_ms: number | null
  last_checkpoint_ms: number | null
  failure: string | null
}

export interface JobSpec {
  name: string
  program: string
  args: string[]
  parallelism: number
  checkpoint_interval_ms: number
  savepoint: string | null
  env: Record<string, string>
}

export interface Operator {
  uid: string
  name: string
}

export interface Vertex {
  id: string
  name: string
  operators: Operator[]
  parallelism: number
  records_in: number
  records_out: number
  records_in_per_s: number
  records_out_per_s: number
  late_dropped: number
  dead_letters: number
  watermark_ms: number | null
  busy_ratio: number
  backpressured_ratio: number
}

export type Ship = 'FORWARD' | 'HASH' | 'REBALANCE' | 'BROADCAST' | 'GLOBAL'

export interface Edge {
  from: string
  to: string
  ship: Ship
}

export interface Checkpoint {
  id: number
  kind: 'checkpoint' | 'savepoint'
  status: 'IN_PROGRESS' | 'COMPLETED' | 'FAILED'
  trigger_ms: number
  duration_ms: number
  bytes: number
  path: string
  failure: string | null
}

export interface Checkpoints {
  completed: number
  failed: number
  in_progress: number
  restored_epoch: number | null
  latest: Checkpoint | null
  history: Checkpoint[]
}

export interface JobException {
  time_ms: number
  message: string
}

export interface JobDetail extends JobSummary {
  spec: JobSpec
  vertices: Vertex[]
  edges: Edge[]
  checkpoints: Checkpoints
  exceptions: JobException[]
}

/** `GET /overview`, in the names of Flink. */
export interface Overview {
  taskmanagers: number
  'slots-total': number
  'slots-available': number
  'jobs-running': number
  'jobs-finished': number
  'jobs-cancelled': number
  'jobs-failed': number
}

export interface JobsEvent {
  jobs: JobSummary[]
  overview: Overview
}

export interface LiveTable {
  name: string
  rows: number
  version: number
  updated_ms: number
}

export interface LiveRow {
  key: string
  value: unknown
}

/** Data of `snapshot` and `delta` events; in a delta a `null` value means the row is gone. */
export interface LiveMessage {
  table: string
  version: number
  rows: LiveRow[]
}

export interface Topic {
  name: string
  partitions: number
  records: number
  bytes: number
  retention_ms: number | null
  retention_bytes: number | null
}

export interface TopicRecord {
  partition: number
  offset: number
  timestamp_ms: number
  key: string | null
  value: unknown
}

export interface TopicRecords {
  records: TopicRecord[]
  next_offset: number
}

// Rows of the order screen. All money is in integer fen.

interface Sales {
  day: string
  fen: number
  quantity: number
  orders: number
}

export interface OrderTotal extends Sales {
  unpaid_fen: number
  unpaid_orders: number
  cancelled_fen: number
  cancelled_orders: number
  duplicates: number
  late: number
  dead_letters: number
  yesterday_fen: number | null
  event_time_ms: number | null
  watermark_ms: number | null
  computed_ms: number
}

export interface OrderMinute {
  minute_ms: number
  fen: number
  quantity: number
  orders: number
  late: number
}

export interface CategorySales extends Sales {
  category: string
}

export interface BrandSales extends CategorySales {
  brand: string
}

export interface UserRank {
  day: string
  rank: number
  user_id: string
  user: string
  fen: number
  orders: number
}

export interface GenderSales extends Sales {
  gender: string
}

export interface GenderWindow {
  window_ms: number
  gender: string
  fen: number
  quantity: number
}

export interface ProvinceSales extends Sales {
  province: string
}

export interface OrderTables {
  'orders.total': OrderTotal
  'orders.minute': OrderMinute
  'orders.category': CategorySales
  'orders.brand': BrandSales
  'orders.user': UserRank
  'orders.gender': GenderSales
  'orders.gender_10min': GenderWindow
  'orders.province': ProvinceSales
}

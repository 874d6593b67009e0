// Every REST call of the UI stands here, so pages never build URLs.
import type { JobDetail, JobSummary, LiveRow, LiveTable, Overview, Topic, TopicRecords } from './types'

/** The server's answer to a call it refused; `errors` are lines meant for people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly errors: string[],
  ) {
    super(errors.join('; '))
    this.name = 'ApiError'
  }
}

const TOKEN = 'tidemill.admin-token'

/** Where the server has an administrator token, calls that change something need it; kept for this browser tab only. */
export function setAdminToken(token: string): void {
  sessionStorage.setItem(TOKEN, token)
}

async function send(path: string, init?: RequestInit): Promise<Response> {
  const token = sessionStorage.getItem(TOKEN)
  const headers = new Headers(init?.headers)
  if (token !== null && init?.method) headers.set('authorization', `Bearer ${token}`)
  const response = await fetch(path, { ...init, headers })
  if (response.ok) return response
  const body: { errors?: string[] } | null = await response.json().catch(() => null)
  throw new ApiError(response.status, body?.errors ?? [`${response.status} ${response.statusText}`])
}

async function get<T>(path: string): Promise<T> {
  return (await send(path)).json()
}

async function post<T>(path: string, body: unknown = {}): Promise<T | null> {
  const response = await send(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  const text = await response.text()
  return text === '' ? null : JSON.parse(text)
}

function query(values: Record<string, string | number | undefined>): string {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) if (value !== undefined) search.set(name, String(value))
  const text = search.toString()
  return text === '' ? '' : `?${text}`
}

const job = (id: string) => `/api/jobs/${encodeURIComponent(id)}`

export interface LiveQuery {
  prefix?: string
  from?: string
  to?: string
  limit?: number
  order?: 'asc' | 'desc'
  [name: string]: string | number | undefined
}

export const api = {
  overview: () => get<Overview>('/overview'),
  jobs: () => get<{ jobs: JobSummary[] }>('/api/jobs'),
  job: (id: string) => get<JobDetail>(job(id)),
  cancel: (id: string) => post(`${job(id)}/cancel`),
  stop: (id: string) => post<{ savepoint: string }>(`${job(id)}/stop`, { drain: false }),
  savepoint: (id: string) => post<{ savepoint: string }>(`${job(id)}/savepoints`),
  restart: (id: string) => post(`${job(id)}/restart`),
  remove: async (id: string) => void (await send(job(id), { method: 'DELETE' })),
  log: async (id: string, tail: number) => (await send(`${job(id)}/log?tail=${tail}`)).text(),
  jobEvents: (id: string) => `${job(id)}/events`,

  liveTables: () => get<{ tables: LiveTable[] }>('/api/live'),
  liveRows: (name: string, options: LiveQuery = {}) =>
    get<{ name: string; version: number; rows: LiveRow[] }>(`/api/live/${encodeURIComponent(name)}${query(options)}`),
  liveEvents: (tables: readonly string[], fps: number) => `/api/live-events?tables=${tables.join(',')}&fps=${fps}`,

  topics: () => get<{ topics: Topic[] }>('/api/topics'),
  /** `latest` gives the last `limit` records. */
  records: (topic: string, partition: number, offset: number | 'latest', limit: number) =>
    get<TopicRecords>(`/api/topics/${encodeURIComponent(topic)}/records${query({ partition, offset, limit })}`),
}

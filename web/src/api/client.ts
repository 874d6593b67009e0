// Every REST call of the UI stands here, so pages never build URLs.
import type { Answer, Posted, Refusal } from './types'

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

/** What to tell a reader beside "the server cannot be reached": the server's own words, if it said any. */
export function serverSaid(error: unknown): string {
  return error instanceof ApiError ? error.message : ''
}

const TOKEN = 'tidemill.admin-token'

/** Where the server has an administrator token, calls that change something need it; kept for this browser tab only. */
export function setAdminToken(token: string): void {
  // Nothing else fits into a header, so nothing else can be the token.
  if (/^[!-~]+$/.test(token)) sessionStorage.setItem(TOKEN, token)
}

export function forgetAdminToken(): void {
  sessionStorage.removeItem(TOKEN)
}

async function send(path: string, init?: RequestInit): Promise<Response> {
  const token = sessionStorage.getItem(TOKEN)
  const headers = new Headers(init?.headers)
  if (token !== null && init?.method) headers.set('authorization', `Bearer ${token}`)
  const response = await fetch(path, { ...init, headers })
  if (response.ok) return response
  const body: Partial<Refusal> | null = await response.json().catch(() => null)
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
  overview: () => get<Answer<'/overview'>>('/overview'),
  jobs: () => get<Answer<'/api/jobs'>>('/api/jobs'),
  job: (id: string) => get<Answer<'/api/jobs/{id}'>>(job(id)),
  cancel: (id: string) => post<Posted<'/api/jobs/{id}/cancel'>>(`${job(id)}/cancel`),
  stop: (id: string) => post<Posted<'/api/jobs/{id}/stop'>>(`${job(id)}/stop`, { drain: false }),
  savepoint: (id: string) => post<Posted<'/api/jobs/{id}/savepoints'>>(`${job(id)}/savepoints`),
  restart: (id: string) => post<Posted<'/api/jobs/{id}/restart'>>(`${job(id)}/restart`),
  remove: async (id: string) => void (await send(job(id), { method: 'DELETE' })),
  log: async (id: string, tail: number) => (await send(`${job(id)}/log?tail=${tail}`)).text(),
  checkpoint: (id: string, checkpoint: number) =>
    get<Answer<'/api/jobs/{id}/checkpoints/{checkpoint}'>>(`${job(id)}/checkpoints/${checkpoint}`),
  jobEvents: (id: string) => `${job(id)}/events`,

  liveTables: () => get<Answer<'/api/live'>>('/api/live'),
  liveRows: (name: string, options: LiveQuery = {}) =>
    get<Answer<'/api/live/{name}'>>(`/api/live/${encodeURIComponent(name)}${query(options)}`),
  liveEvents: (tables: readonly string[], fps: number) => `/api/live-events?tables=${tables.join(',')}&fps=${fps}`,

  topics: () => get<Answer<'/api/topics'>>('/api/topics'),
  /** `latest` gives the last `limit` records. */
  records: (topic: string, partition: number, offset: number | 'latest', limit: number) =>
    get<Answer<'/api/topics/{name}/records'>>(`/api/topics/${encodeURIComponent(topic)}/records${query({ partition, offset, limit })}`),
}

#!/usr/bin/env node
// DEVELOPMENT ONLY. A stand-in for `tidemill serve` with invented, moving data: it speaks the REST and SSE contract of
// docs/reference/rest.md and serves web/dist, so the pages can be built and tested without the server.
//
//   node mock/server.mjs [--port 8081] [--empty]
//
// POST /mock/outage?ms=5000 drops all event streams and refuses new ones for that long, to see the fallback at work.
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createJobs } from './jobs.mjs'
import { orderEvent, startOrders } from './orders.mjs'
import { createTables } from './tables.mjs'

const { values: options } = parseArgs({ options: { port: { type: 'string', default: '8081' }, empty: { type: 'boolean', default: false } } })
const DIST = fileURLToPath(new URL('../dist', import.meta.url))
const BOOT = Date.now().toString(36)
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2', '.json': 'application/json' }

const tables = createTables()
const jobs = createJobs()
startOrders(tables, options.empty)
if (options.empty) jobs.clear()

const streams = new Set()
const started = Date.now()
let outageUntil = 0

function json(response, body, status = 200) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
const refuse = (response, status, line) => json(response, { errors: [line] }, status)

/** Opens an event stream; `beat` is called each `everyMs` and writes with `send`. */
function stream(request, response, everyMs, beat) {
  if (Date.now() < outageUntil) return refuse(response, 503, 'mock outage')
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  const send = (event, data, id) => response.write(`${id ? `id: ${id}\n` : ''}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  beat(send)
  const timer = setInterval(() => beat(send), everyMs)
  const heart = setInterval(() => send('heartbeat', {}), 5000)
  streams.add(response)
  response.on('close', () => {
    clearInterval(timer)
    clearInterval(heart)
    streams.delete(response)
  })
}

function liveEvents(request, response, query) {
  const names = (query.get('tables') ?? '').split(',').filter(Boolean)
  const fps = Math.min(30, Number(query.get('fps') ?? 10))
  const [boot, at] = (request.headers['last-event-id'] ?? '').split('.')
  let since = boot === BOOT ? Number(at) : null
  stream(request, response, 1000 / fps, (send) => {
    const now = tables.version()
    for (const name of names) {
      const message = since === null ? tables.snapshot(name) : tables.delta(name, since)
      if (message) send(since === null ? 'snapshot' : 'delta', message, `${BOOT}.${now}`)
    }
    since = now
  })
}

function liveRows(response, name, query) {
  if (!tables.has(name)) return refuse(response, 404, `no live table "${name}"`)
  const [prefix, from, to] = [query.get('prefix') ?? '', query.get('from') ?? '', query.get('to') ?? '\uffff']
  const keys = [...tables.rows(name).keys()].filter((key) => key.startsWith(prefix) && key >= from && key < to).sort()
  if (query.get('order') === 'desc') keys.reverse()
  const { version, updated_ms } = tables.info(name)
  const rows = keys.slice(0, Number(query.get('limit') ?? keys.length)).map((key) => ({ key, value: tables.get(name, key), updated_ms }))
  json(response, { name, version, rows })
}

function topicRecords(response, query) {
  const [partition, limit] = ['partition', 'limit'].map((field) => Number(query.get(field) ?? 0))
  const end = Math.floor((Date.now() - started) / 410) + 8000
  const offset = query.get('offset') === 'latest' ? Math.max(0, end - limit) : Number(query.get('offset') ?? 0)
  const records = Array.from({ length: Math.max(0, Math.min(limit || 100, end - offset)) }, (_, index) => {
    const number = offset + index
    const at = started + (number - 8000) * 410
    const value = orderEvent(at, number * 4 + partition)
    return { partition, offset: number, timestamp_ms: at + 120, key: value.userId, value }
  })
  json(response, { records, next_offset: offset + records.length })
}

function jobCall(request, response, id, rest, query) {
  const job = jobs.find(id)
  if (!job) return refuse(response, 404, `no job "${id}"`)
  if (request.method === 'GET' && rest === undefined) return json(response, jobs.detail(job))
  if (request.method === 'GET' && rest === 'events') return stream(request, response, 1000, (send) => send('job', jobs.detail(job)))
  if (request.method === 'GET' && rest === 'log') {
    return response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(job.log.slice(-Number(query.get('tail') ?? 200)).join('\n'))
  }
  if (request.method === 'DELETE' && rest === undefined) {
    jobs.forget(job)
    return json(response, {})
  }
  try {
    return json(response, jobs.act(job, rest))
  } catch (error) {
    return refuse(response, 409, error.message)
  }
}

function api(request, response, path, query) {
  const [, resource, name, rest] = path.split('/').filter(Boolean).map(decodeURIComponent)
  if (resource === 'events') return stream(request, response, 1000, (send) => send('jobs', { jobs: jobs.all(), overview: jobs.overview() }))
  if (resource === 'jobs') return name ? jobCall(request, response, name, rest, query) : json(response, { jobs: jobs.all() })
  if (resource === 'live-events') return liveEvents(request, response, query)
  if (resource === 'live') return name ? liveRows(response, name, query) : json(response, { tables: tables.names().map(tables.info) })
  if (resource === 'topics' && name) return topicRecords(response, query)
  if (resource === 'topics') {
    const grown = Math.floor(Date.now() / 400) % 1_000_000
    return json(response, { topics: options.empty ? [] : [
      { name: 'orders', partitions: 4, records: 2_413_000 + grown, bytes: (2_413_000 + grown) * 212, retention_ms: 604_800_000, retention_bytes: null },
      { name: 'orders.dead-letters', partitions: 1, records: 112, bytes: 40_960, retention_ms: null, retention_bytes: null },
      { name: 'web-access', partitions: 2, records: 18_204_511, bytes: 3_904_882_113, retention_ms: 86_400_000, retention_bytes: 8_589_934_592 },
    ] })
  }
  return refuse(response, 404, `no such call: ${path}`)
}

async function page(response, path) {
  const asset = normalize(path).replace(/^(\.\.[/\\])+/, '')
  const file = extname(asset) ? asset : 'index.html'
  try {
    const body = await readFile(join(DIST, file))
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' }).end(body)
  } catch {
    refuse(response, 404, `no such file: ${path} (has web/dist been built?)`)
  }
}

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://mock')
  if (pathname === '/mock/outage' && request.method === 'POST') {
    outageUntil = Date.now() + Number(searchParams.get('ms') ?? 5000)
    for (const open of streams) open.destroy()
    return json(response, {})
  }
  if (pathname === '/overview') return json(response, jobs.overview())
  if (pathname.startsWith('/api/')) return api(request, response, pathname, searchParams)
  return page(response, pathname)
})
server.listen(Number(options.port), '127.0.0.1', () => {
  console.log(`mock (development only) on http://127.0.0.1:${server.address().port}`)
})

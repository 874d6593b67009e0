// Development only: a few jobs whose numbers move and whose states answer to cancel, stop and restart.

const vertex = (id, name, operators, share, busy, extra = {}) => ({ id, name, operators: operators.map((one) => ({ uid: one.toLowerCase().replace(/\W+/g, '-'), name: one })), share, busy, ...extra })

const PLANS = {
  'order-screen': {
    program: 'order-screen', args: ['--topic', 'orders'], rate: 24000, parallelism: 2,
    vertices: [
      vertex('v1', 'Source: orders -> parse', ['Source: orders', 'parse', 'watermarks'], 1, 0.42),
      vertex('v2', 'dedup by orderId -> split', ['dedup by orderId', 'split'], 1, 0.66),
      vertex('v3', 'per minute sums', ['tumbling 1 min', 'sum'], 0.9, 0.31),
      vertex('v4', 'by category and brand', ['category sums', 'brand sums'], 0.9, 0.28),
      vertex('v5', 'top 10 spenders', ['user sums', 'rank'], 0.9, 0.86),
      vertex('v6', 'by gender, 10 min', ['gender sums', 'tumbling 10 min'], 0.9, 0.22),
      vertex('v7', 'Sink: live tables', ['merge', 'Sink: live tables'], 0.02, 0.12),
      vertex('v8', 'Sink: dead letters', ['Sink: dead letters'], 0.0004, 0.01, { dead: true }),
    ],
    edges: [['v1', 'v2', 'HASH'], ['v1', 'v8', 'REBALANCE'], ['v2', 'v3', 'HASH'], ['v2', 'v4', 'HASH'], ['v2', 'v5', 'HASH'], ['v2', 'v6', 'HASH'], ['v3', 'v7', 'GLOBAL'], ['v4', 'v7', 'GLOBAL'], ['v5', 'v7', 'GLOBAL'], ['v6', 'v7', 'GLOBAL']],
  },
  'page-views': {
    program: 'page-views.toml', args: [], rate: 181000, parallelism: 2,
    vertices: [
      vertex('a', 'Source: web-access -> parse', ['Source: web-access', 'parse'], 1, 0.5, { pressed: 0.62 }),
      vertex('b', 'unique visitors by province', ['key by province', 'HLL'], 1, 0.97),
      vertex('c', 'Sink: live tables', ['Sink: live tables'], 0.001, 0.05),
    ],
    edges: [['a', 'b', 'HASH'], ['b', 'c', 'FORWARD']],
  },
  'login-alerts': { program: 'login-alerts', args: [], rate: 0, parallelism: 1, state: 'FAILED', failure: 'cannot read topic "logins": no such topic', vertices: [], edges: [] },
  'ad-clicks-backfill': { program: 'ad-clicks.toml', args: ['--from', 'earliest'], rate: 0, parallelism: 2, state: 'FINISHED', vertices: [vertex('s', 'Source: ad_click.csv -> count', ['Source: ad_click.csv', 'count'], 1, 0)], edges: [] },
}

const ENDED = ['FINISHED', 'CANCELED', 'SUSPENDED', 'FAILED']
const wave = (phase, period) => Math.sin(Date.now() / period + phase)

export function createJobs() {
  const started = Date.now() - 7_421_000
  const jobs = Object.entries(PLANS).map(([name, plan], index) => ({
    id: (0x5eed1e55 + index * 7919).toString(16).repeat(4), name, plan, state: plan.state ?? 'RUNNING', start_ms: started,
    end_ms: plan.state ? started + 92_000 : null, restarts: name === 'order-screen' ? 1 : 0, failure: plan.failure ?? null,
    epoch: 7420, history: [], restored: name === 'order-screen' ? 312 : null,
    exceptions: name === 'order-screen' ? [{ time_ms: started + 312_000, message: 'worker 1 was lost (signal 9); restarting from checkpoint 312' }] : plan.failure ? [{ time_ms: started + 92_000, message: plan.failure }] : [],
    log: [`INFO job ${name} started, parallelism ${plan.parallelism}`],
  }))
  for (const job of jobs) if (job.state === 'RUNNING') for (let back = 20; back > 0; back--) checkpoint(job, Date.now() - back * 1000)

  function checkpoint(job, at, kind = 'checkpoint') {
    job.epoch += 1
    const failed = job.epoch % 997 === 0
    const done = { id: job.epoch, kind, status: failed ? 'FAILED' : 'COMPLETED', trigger_ms: at, duration_ms: Math.round(18 + 9 * wave(job.epoch, 5e8) + (job.epoch % 11 === 0 ? 46 : 0)), bytes: 3_400_000 + Math.round(240_000 * wave(job.epoch, 9000)), written_bytes: 310_000 + Math.round(90_000 * wave(job.epoch, 4000)), alignment_ms: job.epoch % 4, subtasks: 8, acknowledged: failed ? 5 : 8, path: `data/jobs/${job.id.slice(0, 8)}/${kind}s/${job.epoch}`, failure: failed ? 'write timed out after 10 s' : null }
    job.history = [...job.history, done].slice(-40)
    job.log = [...job.log, `INFO ${kind} ${done.id} ${done.status.toLowerCase()} in ${done.duration_ms} ms, ${done.bytes} bytes`].slice(-400)
    return done
  }
  setInterval(() => {
    for (const job of jobs) if (job.state === 'RUNNING') checkpoint(job, Date.now())
  }, 1000).unref()

  const rate = (job) => (job.state === 'RUNNING' ? job.plan.rate * (1 + 0.12 * wave(job.start_ms, 7000)) : 0)

  function summary(job) {
    const running = job.state === 'RUNNING'
    return {
      id: job.id, name: job.name, state: job.state, start_ms: job.start_ms, end_ms: job.end_ms, parallelism: job.plan.parallelism, slots: job.plan.parallelism, restarts: job.restarts,
      records_in_per_s: rate(job), records_out_per_s: rate(job) * 0.021, lag_records: running ? Math.round((job.name === 'page-views' ? 48_000 : 900) * (1 + 0.3 * wave(1, 4000))) : null,
      watermark_ms: running ? Date.now() - 3200 : null, last_checkpoint_ms: job.history.at(-1)?.trigger_ms ?? null, failure: job.failure,
    }
  }
  function detail(job) {
    const seconds = (Date.now() - job.start_ms) / 1000
    const last = job.history.at(-1) ?? null
    return {
      ...summary(job),
      spec: { name: job.name, program: job.plan.program, args: job.plan.args, parallelism: job.plan.parallelism, checkpoint_interval_ms: 1000, savepoint: null, env: {} },
      vertices: job.plan.vertices.map((one, index) => {
        const into = rate(job) * one.share
        const next = job.plan.vertices[index + 1]
        return { id: one.id, name: one.name, operators: one.operators, parallelism: job.plan.parallelism, records_in: Math.round(into * seconds), records_out: Math.round(into * seconds * (next ? 0.96 : 0)), records_in_per_s: into, records_out_per_s: next ? into * 0.96 : 0, late_dropped: index === 2 ? 17 : 0, dead_letters: one.dead ? 112 : 0, watermark_ms: job.state === 'RUNNING' && !one.dead ? Date.now() - 3200 - index * 14 : null, busy_ratio: job.state === 'RUNNING' ? Math.min(1, Math.max(0, one.busy + 0.05 * wave(index, 3000))) : 0, backpressured_ratio: job.state === 'RUNNING' ? (one.pressed ?? 0) : 0 }
      }),
      edges: job.plan.edges.map(([from, to, ship]) => ({ from, to, ship })),
      checkpoints: { completed: Math.max(0, job.epoch - 3), failed: 3, in_progress: 0, restored_epoch: job.restored, latest: last, history: job.history },
      exceptions: job.exceptions,
    }
  }
  function overview() {
    const count = (...states) => jobs.filter((job) => states.includes(job.state)).length
    const used = jobs.reduce((sum, job) => sum + (job.state === 'RUNNING' ? job.plan.parallelism : 0), 0)
    return { taskmanagers: 1, 'slots-total': 8, 'slots-available': 8 - used, 'jobs-running': count('RUNNING', 'RESTARTING', 'CREATED'), 'jobs-finished': count('FINISHED'), 'jobs-cancelled': count('CANCELED', 'SUSPENDED'), 'jobs-failed': count('FAILED'), 'flink-version': '2.3.0', 'flink-commit': 'mock' }
  }
  function act(job, action) {
    if (action === 'restart') {
      if (!ENDED.includes(job.state)) throw new Error(`job "${job.name}" is running`)
      Object.assign(job, { state: 'RUNNING', end_ms: null, start_ms: Date.now(), failure: null, restored: job.epoch })
      return {}
    }
    if (ENDED.includes(job.state)) throw new Error(`job "${job.name}" has ended`)
    const savepoint = action === 'cancel' ? null : checkpoint(job, Date.now(), 'savepoint').path
    if (action !== 'savepoints') Object.assign(job, { state: action === 'stop' ? 'SUSPENDED' : 'CANCELED', end_ms: Date.now() })
    return savepoint ? { savepoint } : {}
  }
  return {
    find: (id) => jobs.find((job) => job.id === id),
    forget: (job) => jobs.splice(jobs.indexOf(job), 1),
    clear: () => jobs.splice(0),
    all: () => jobs.map(summary),
    detail,
    overview,
    act,
  }
}

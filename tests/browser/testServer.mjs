// A server of a browser test: started, spoken to, killed, and always ended with its jobs.
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assert } from './browser.mjs'

/** A server starts and ends within this. */
const SERVER_MS = 20_000

/** Gives a folder to a test and removes it. */
export async function withFolder(body) {
  const folder = mkdtempSync(join(tmpdir(), 'tidemill-browser.'))
  try {
    await body(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A server over a folder of its own. It can be killed and started again at the same address. */
export class TestServer {
  address = '127.0.0.1:0'
  token = undefined
  constructor(program, folder, token) {
    this.program = program
    this.data = join(folder, 'data')
    this.jobs = join(folder, 'jobs')
    this.token = token
    mkdirSync(this.jobs, { recursive: true })
  }

  async start() {
    const args = ['serve', '--data', this.data, '--jobs', this.jobs, '--listen', this.address]
    const env = { ...process.env, RUST_LOG: 'warn', ...(this.token && { TIDEMILL_ADMIN_TOKEN: this.token }) }
    if (!this.token) delete env.TIDEMILL_ADMIN_TOKEN
    const child = spawn(this.program, args, { stdio: ['ignore', 'pipe', 'inherit'], env })
    this.child = child
    this.ended = new Promise((resolve) => child.once('exit', resolve))
    this.url = await within(`the server listens on ${this.address}`, new Promise((resolve, reject) => {
      child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)))
      child.stdout.on('data', (chunk) => {
        const found = /listening on (http:\/\/\S+)/.exec(String(chunk))
        if (found) resolve(found[1])
      })
    }))
    this.address = new URL(this.url).host
    return this
  }

  async end(signal) {
    this.child.kill(signal)
    await within('the server ends', this.ended)
  }

  /** Ends the server and its jobs, wherever the test has left them. */
  async remove() {
    if (this.child && this.child.exitCode === null && this.child.signalCode === null) return this.end('SIGTERM')
    // It was killed and its jobs live on: only a server over the same folder knows them.
    if (this.child) await (await this.start()).end('SIGTERM')
  }

  async send(method, path, body, headers = {}) {
    const type = typeof body === 'string' ? 'application/octet-stream' : 'application/json'
    const answer = await fetch(this.url + path, {
      method,
      headers: { 'content-type': type, ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
    const text = await answer.text()
    return { status: answer.status, body: text === '' ? null : JSON.parse(text) }
  }

  async sent(method, path, body, headers) {
    const answer = await this.send(method, path, body, headers)
    assert(answer.status < 300, `${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body
  }
}

function within(what, promise) {
  let timer
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`not within ${SERVER_MS} ms: ${what}`)), SERVER_MS)))
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

// What the browser tests share: one browser, pages that remember what they should not have done, a tally.
import { mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const WEB = fileURLToPath(new URL('../../web/', import.meta.url))
const { chromium } = createRequire(join(WEB, 'package.json'))('playwright-core')

/** A wait for something on the page ends after this long. */
const WAIT_MS = 15_000

const tally = { passed: 0, failed: 0 }
let shots

export async function check(name, body) {
  try {
    await body()
    tally.passed += 1
    console.log(`ok   ${name}`)
    return true
  } catch (error) {
    fail(name, String(error?.message ?? error))
    return false
  }
}

export function fail(name, text) {
  tally.failed += 1
  console.log(`FAIL ${name}\n     ${text.split('\n').slice(0, 8).join('\n     ')}`)
}

export function assert(condition, message) {
  if (!condition) throw new Error(message)
}

/** Pictures go into this folder; without one there are none. */
export function keepShots(folder) {
  shots = folder
  if (folder) mkdirSync(folder, { recursive: true })
}

export async function shoot(page, name) {
  if (shots) await page.screenshot({ path: join(shots, `${name}.png`) })
}

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  })
}

/** A page in a browser session of its own, that remembers everything it should not have done. */
export async function openPage(browser, base, [width, height]) {
  const page = await browser.newPage({ viewport: { width, height } })
  page.setDefaultTimeout(WAIT_MS)
  const errors = []
  const strangers = []
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
  page.on('pageerror', (error) => errors.push(String(error)))
  page.on('request', (request) => {
    const url = new URL(request.url())
    if (url.protocol !== 'data:' && url.protocol !== 'blob:' && url.origin !== new URL(base).origin) strangers.push(request.url())
  })
  return { page, errors, strangers }
}

/** Prints the sum as the last line and ends the program. */
export function conclude() {
  console.log(`${tally.passed} passed, ${tally.failed} failed`)
  process.exit(tally.failed > 0 ? 1 : 0)
}

#!/usr/bin/env node
// Drives the UI in a real browser, as a visitor would: the order screen in both languages and on both wall sizes, then
// the console. Works against the mock (default) and against a running server.
//
//   node tests/browser/screen.mjs [--url http://127.0.0.1:8081] [--shots <folder>]
//
// Needs `npm ci` and `npm run build` in web/. Prints `N passed, N failed`; the exit code is 1 when something failed.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { assert, check, conclude, fail, keepShots, launch, openPage, shoot, WEB } from './browser.mjs'

const { values: options } = parseArgs({ options: { url: { type: 'string' }, shots: { type: 'string' } } })

const METRICS = ['amount', 'quantity', 'minute', 'categories', 'brands', 'spenders', 'gender', 'gender-windows']
const SIZES = [
  [1920, 1080],
  [3840, 2160],
]
const CHANGE_MS = 30_000

/** Starts the mock on a free port; resolves with its address once it listens. */
function startMock() {
  const child = spawn(process.execPath, [join(WEB, 'mock/server.mjs'), '--port', '0'], { stdio: ['ignore', 'pipe', 'inherit'] })
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the mock ended with ${code}`)))
    child.stdout.on('data', (chunk) => {
      const found = /http:\/\/\S+/.exec(String(chunk))
      if (found) resolve({ url: found[0], stop: () => child.kill() })
    })
  })
}

const total = (page) => page.locator('[data-panel=amount] [data-value]').getAttribute('data-value')

async function changed(page, before) {
  await page.waitForFunction(
    (old) => document.querySelector('[data-panel=amount] [data-value]')?.getAttribute('data-value') !== old,
    before,
    { timeout: CHANGE_MS },
  )
}

/** True when a chart's canvas has drawn something: more than one colour on a grid of samples. */
const painted = (panel) =>
  panel.locator('canvas').first().evaluate((canvas) => {
    const { width, height } = canvas
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data
    const seen = new Set()
    for (let at = 0; at < pixels.length; at += 4 * 97) seen.add(`${pixels[at]},${pixels[at + 1]},${pixels[at + 2]},${pixels[at + 3] >> 4}`)
    return seen.size > 8
  })

async function screen(browser, base, language, size) {
  const { page, errors, strangers } = await openPage(browser, base, size)
  const name = `${language} ${size.join('x')}`
  await page.goto(`${base}/screen/orders?lang=${language}`)
  await check(`${name}: the eight metrics are there with numbers`, async () => {
    await page.locator('[data-panel=amount]').waitFor()
    for (const metric of METRICS) assert((await page.locator(`[data-panel=${metric}]`).count()) === 1, `no panel "${metric}"`)
    for (const metric of ['amount', 'quantity']) {
      const value = await page.locator(`[data-panel=${metric}] [data-value]`).getAttribute('data-value')
      assert(/[1-9]/.test(value), `"${metric}" shows "${value}"`)
    }
    assert((await page.locator('[data-panel=spenders] li').count()) >= 1, 'no spender is listed')
    assert(/\d%/.test(await page.locator('[data-panel=gender] ul').innerText()), 'no share of a gender is shown')
    assert((await page.locator('[data-panel=categories] .hill').count()) >= 2, 'fewer than two categories')
  })
  await check(`${name}: the charts have drawn and are as sharp as the wall`, async () => {
    await page.waitForTimeout(1500)
    for (const metric of ['minute', 'brands', 'gender', 'gender-windows', 'provinces']) {
      const panel = page.locator(`[data-panel=${metric}]`)
      assert(await painted(panel), `the canvas of "${metric}" is empty`)
      const ratio = await panel.locator('canvas').first().evaluate((canvas) => canvas.width / canvas.getBoundingClientRect().width)
      assert(Math.abs(ratio - 1) < 0.02, `the canvas of "${metric}" has ${ratio} pixels a pixel`)
    }
  })
  await check(`${name}: the total changes by itself`, async () => changed(page, await total(page)))
  await check(`${name}: nothing scrolls and nothing leaves the canvas`, async () => {
    const out = await page.evaluate(() => {
      const found = []
      if (document.documentElement.scrollHeight > innerHeight || document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls')
      const canvas = document.querySelector('.wall-canvas').getBoundingClientRect()
      for (const panel of document.querySelectorAll('[data-panel]')) {
        const box = panel.getBoundingClientRect()
        if (box.bottom > canvas.bottom + 1 || box.right > canvas.right + 1) found.push(`"${panel.dataset.panel}" leaves the canvas`)
        if (panel.scrollWidth > panel.clientWidth + 1) found.push(`"${panel.dataset.panel}" is wider than its frame`)
      }
      return found
    })
    assert(out.length === 0, out.join('; '))
  })
  await shoot(page, `screen-${language}-${size[0]}`)
  await check(`${name}: a category opens its brands, a brand its figures, and the path leads back`, async () => {
    const panel = page.locator('[data-panel=categories]')
    const categories = await panel.locator('.hill').evaluateAll((hills) => hills.map((hill) => hill.dataset.name))
    await panel.locator('.hill').first().click()
    await panel.locator('[data-crumb=all]').waitFor()
    await page.waitForFunction((old) => document.querySelector('.hill')?.dataset.name !== old, categories[0])
    const brands = await panel.locator('.hill').evaluateAll((hills) => hills.map((hill) => hill.dataset.name))
    assert(brands.length > 0 && brands.every((brand) => !categories.includes(brand)), `brands are ${brands}`)
    await panel.locator('.hill').first().click()
    assert(/\d/.test(await panel.locator('[data-detail=brand]').innerText()), 'the brand shows no figures')
    await page.waitForTimeout(900)
    await shoot(page, `drill-${language}-${size[0]}`)
    await panel.locator('[data-crumb=all]').click()
    await panel.locator(`.hill[data-name="${categories[0]}"]`).waitFor()
  })
  await check(`${name}: no console error, no request to another host`, async () => {
    assert(errors.length === 0, `console: ${errors.join(' | ')}`)
    assert(strangers.length === 0, `requests: ${strangers.join(' ')}`)
  })
  await page.close()
}

/** Only against the mock: it ends a job. */
async function jobActions(browser, base) {
  const { page } = await openPage(browser, base, [1600, 1000])
  await page.goto(`${base}/?lang=en`)
  const row = page.locator('tr', { has: page.locator('[data-state=RUNNING]') }).last()
  const name = await row.locator('[data-job]').innerText()
  const state = (wanted) => page.locator('tr', { hasText: name }).locator(`[data-state=${wanted}]`).waitFor()
  const answer = (text) => page.locator('.el-message-box').getByRole('button', { name: text, exact: true }).click()
  await check('cancel asks first, and "Back" leaves the job alone', async () => {
    await row.locator('[data-action=cancel]').click()
    assert((await page.locator('.el-message-box').innerText()).includes(name), 'the question does not name the job')
    await page.waitForTimeout(400)
    await shoot(page, 'confirm-en')
    await answer('Back')
    await page.waitForTimeout(1500)
    await state('RUNNING')
  })
  await check('a confirmed cancel ends the job and a restart brings it back', async () => {
    await row.locator('[data-action=cancel]').click()
    await answer('Cancel job')
    await state('CANCELED')
    await page.locator('tr', { hasText: name }).locator('[data-action=restart]').click()
    await answer('Restart job')
    await state('RUNNING')
  })
  await page.close()
}

async function outage(browser, base) {
  const { page } = await openPage(browser, base, SIZES[0])
  await page.goto(`${base}/screen/orders?lang=en`)
  await page.locator('[data-status=live]').waitFor()
  await check('without the stream the screen says so, goes on by polling, and comes back', async () => {
    const answer = await page.request.post(`${base}/mock/outage?ms=7000`)
    assert(answer.ok(), 'the mock refused the outage')
    await page.locator('[data-status=reconnecting]').waitFor({ timeout: 10_000 })
    const before = await total(page)
    await changed(page, before)
    assert((await page.locator('[data-status=reconnecting]').count()) === 1, 'the stream came back too early to tell')
    await shoot(page, 'screen-en-reconnecting')
    await page.locator('[data-status=live]').waitFor({ timeout: 30_000 })
  })
  await page.close()
}

async function consolePages(browser, base, language) {
  const { page, errors, strangers } = await openPage(browser, base, [1600, 1000])
  await page.goto(`${base}/?lang=${language}`)
  await check(`${language}: from the overview to a job`, async () => {
    await page.locator('[data-job]').first().waitFor()
    await page.waitForTimeout(2500)
    await shoot(page, `overview-${language}`)
    const running = page.locator('tr', { has: page.locator('[data-state=RUNNING]') })
    await running.first().locator('[data-job]').click()
    await page.locator('[data-vertex]').first().waitFor()
    await page.locator('[data-vertex]').first().click()
    assert(/\d/.test(await page.locator('[data-vertex]').first().innerText()), 'the vertex shows no numbers')
    await page.waitForTimeout(800)
    await shoot(page, `job-${language}`)
    await page.locator('[role=tab]').nth(2).click()
    await page.locator('pre.spec').waitFor()
    await page.locator('[role=tab]').nth(3).click()
    await page.locator('pre, .el-alert').last().waitFor()
    await shoot(page, `job-log-${language}`)
  })
  await check(`${language}: topics and their records`, async () => {
    await page.locator('nav a[href="/topics"]').click()
    await page.locator('[data-topic]').first().click()
    await page.locator('[data-section=records] tbody tr').first().waitFor()
    await shoot(page, `topics-${language}`)
  })
  await check(`${language}: live tables and their rows`, async () => {
    await page.locator('nav a[href="/live"]').click()
    await page.locator('[data-section=rows] tbody tr').first().waitFor()
    await shoot(page, `live-${language}`)
  })
  await check(`${language}: dark and light, and the other language, stay after a reload`, async () => {
    const isDark = () => page.evaluate(() => document.documentElement.classList.contains('dark'))
    const before = await isDark()
    await page.locator('[data-action=theme]').click()
    await page.locator('[data-action=language]').click()
    await page.reload()
    assert((await isDark()) !== before, 'the theme was forgotten')
    const lang = await page.evaluate(() => document.documentElement.lang)
    assert(lang.startsWith(language === 'zh' ? 'en' : 'zh'), `the language was forgotten: ${lang}`)
    await page.locator('nav a[href="/"]').first().click()
    await page.locator('.tiles').waitFor()
    await page.waitForTimeout(2500)
    await shoot(page, `overview-dark-${language === 'zh' ? 'en' : 'zh'}`)
  })
  await check(`${language}: addresses of monitoring paths lead to the page, an unknown one is named`, async () => {
    await page.goto(`${base}/jobs/overview`)
    await page.locator('[data-job]').first().waitFor()
    await page.goto(`${base}/no/such/page`)
    await page.getByText('/no/such/page').waitFor()
    await page.goto(`${base}/overview`)
    await page.locator('.tiles').waitFor()
  })
  await check(`${language}: the console has no errors and asks no other host`, async () => {
    assert(errors.length === 0, `console: ${errors.join(' | ')}`)
    assert(strangers.length === 0, `requests: ${strangers.join(' ')}`)
  })
  await page.close()
}

keepShots(options.shots)
const mock = options.url ? null : await startMock()
const base = (options.url ?? mock.url).replace(/\/$/, '')
const browser = await launch()
try {
  for (const language of ['zh', 'en']) for (const size of SIZES) await screen(browser, base, language, size)
  for (const language of ['zh', 'en']) await consolePages(browser, base, language)
  if (mock) await jobActions(browser, base)
  if (mock) await outage(browser, base)
} catch (error) {
  fail('the test itself', error?.stack ?? String(error))
} finally {
  await browser.close()
  mock?.stop()
}
conclude()

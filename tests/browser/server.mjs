#!/usr/bin/env node
// The page against real servers with a real job, as an operator would use it: cancel, restart and stop with a savepoint,
// a server that is killed while the page is open, a server with an administrator token.
//
//   node tests/browser/server.mjs --bin target/debug [--shots <folder>]
//
// Needs `npm ci` and `npm run build` in web/ before the program `tidemill` is built. Prints `N passed, N failed`.
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { assert, check, conclude, fail, keepShots, launch, openPage, shoot } from './browser.mjs'
import { TestServer, withFolder } from './testServer.mjs'

const { values: options } = parseArgs({ options: { bin: { type: 'string', default: 'target/debug' }, shots: { type: 'string' } } })
const SIZE = [1600, 1000]
const TOKEN = 'of-the-administrator'

// What a reader must find in each language.
const TEXT = {
  en: {
    states: { RUNNING: 'Running', CANCELED: 'Cancelled', SUSPENDED: 'Stopped' },
    go: { cancel: 'Cancel job', restart: 'Restart job', stop: 'Stop job' },
    parts: ['Source: ', 'Start delay', 'Alignment', '1/1'],
    saved: 'Savepoint written to ',
    away: 'The server cannot be reached; trying again',
    wallAway: 'Reconnecting',
    token: { title: 'Administrator token', wrong: 'This token is wrong.', go: 'Go on', back: 'Back', none: 'Nothing was changed' },
  },
  zh: {
    states: { RUNNING: '运行中', CANCELED: '已取消', SUSPENDED: '已停止' },
    go: { cancel: '取消作业', restart: '重新启动作业', stop: '停止作业' },
    parts: ['Source: ', '启动延迟', '对齐', '1/1'],
    saved: '保存点已写入 ',
    away: '无法连接服务器，正在自动重试',
    wallAway: '重连中',
    token: { title: '需要管理员令牌', wrong: '令牌不正确。', go: '继续', back: '返回', none: '没有做任何修改' },
  },
}

/** Rows of a topic become rows of the wall's first table: a job with a source that waits, and with checkpoints. */
const JOB = `name = "totals"
parallelism = 1
checkpoint_interval_ms = 500
[source]
connector = "topic"
topic = "totals"
format = "json"
[sink]
connector = "live"
table = "orders.total"
key = "day"
`

/** A topic, and the job that reads it; the job's id. */
async function submit(server, headers) {
  await server.sent('POST', '/api/topics', { name: 'totals', partitions: 1 }, headers)
  return (await server.sent('POST', '/api/jobs', { name: 'totals', program: 'totals.toml' }, headers)).id
}

/** Sends a day's total, which the job brings to the wall. */
async function sendTotal(server, yuan) {
  const none = { quantity: 0, orders: 1, unpaid_fen: 0, unpaid_orders: 0, cancelled_fen: 0, cancelled_orders: 0 }
  const now = Date.now()
  const times = { event_time_ms: now, watermark_ms: now, computed_ms: now }
  const row = { day: '2026-11-21', fen: yuan * 100, ...none, duplicates: 0, late: 0, dead_letters: 0, yesterday_fen: null, ...times }
  await server.sent('POST', '/api/topics/totals/records', row)
}

/** Waits until the job is shown in this state, in the words of the language. */
async function shows(page, language, state) {
  await page.locator(`[data-state=${state}]`).waitFor()
  const text = await page.locator(`[data-state=${state}]`).innerText()
  assert(text.includes(TEXT[language].states[state]), `the state ${state} is shown as "${text}"`)
}

/** Clicks an action and says yes to the question, which must name the job. */
async function act(page, language, action) {
  await page.locator(`[data-action=${action}]`).click()
  const text = TEXT[language].go[action]
  const box = page.getByRole('dialog', { name: text })
  assert((await box.innerText()).includes('totals'), 'the question does not name the job')
  await press(box, text)
}

/** Presses a button of a question and waits until the question is gone: it fades, and the next one may look alike. */
async function press(box, text) {
  const question = await box.elementHandle()
  await box.getByRole('button', { name: text, exact: true }).click()
  await question.waitForElementState('hidden')
}

async function jobLife(browser, server, language, id) {
  const { page, errors } = await openPage(browser, server.url, SIZE)
  await page.goto(`${server.url}/?lang=${language}`)
  await check(`${language}: a cancelled job is shown as cancelled, and runs again after a restart`, async () => {
    await shows(page, language, 'RUNNING')
    await act(page, language, 'cancel')
    await shows(page, language, 'CANCELED')
    await act(page, language, 'restart')
    await shows(page, language, 'RUNNING')
  })
  await check(`${language}: a checkpoint opens to what its operators and subtasks had to do, and stays open`, async () => {
    await page.locator('[data-job]').click()
    const rows = page.locator('.el-table__row')
    await rows.nth(1).waitFor()
    await rows.first().locator('.el-table__expand-icon').click()
    await page.locator('[data-checkpoint] tbody tr').first().waitFor()
    const id = await page.locator('[data-checkpoint]').first().getAttribute('data-checkpoint')
    const parts = page.locator(`[data-checkpoint="${id}"]`)
    const text = await parts.innerText()
    for (const word of TEXT[language].parts) assert(text.includes(word), `"${word}" is not in "${text}"`)
    // Newer checkpoints come above it meanwhile.
    const newest = () => Number(document.querySelector('.el-table__row td:nth-child(2)')?.innerText)
    await page.waitForFunction(`(${newest})() > ${id} + 1`)
    await shoot(page, `checkpoint-${language}`)
    assert(await parts.isVisible(), 'the row has closed by itself')
    await page.locator('.crumbs a').click()
  })
  await check(`${language}: a job stopped on its own page tells its savepoint, and goes on after a restart`, async () => {
    await page.locator('[data-job]').click()
    await page.locator('[data-vertex]').first().waitFor()
    await shows(page, language, 'RUNNING')
    await act(page, language, 'stop')
    await shows(page, language, 'SUSPENDED')
    const told = await page.locator('.el-message--success', { hasText: TEXT[language].saved }).innerText()
    const folder = told.slice(told.indexOf(TEXT[language].saved) + TEXT[language].saved.length).trim()
    assert(existsSync(join(folder, '_metadata')), `there is no savepoint in "${folder}"`)
    await shoot(page, `stopped-${language}`)
    await act(page, language, 'restart')
    await shows(page, language, 'RUNNING')
    const job = await (await fetch(`${server.url}/api/jobs/${id}`)).json()
    assert(job.failure === null && job.restarts === 0, `the job failed meanwhile: ${job.failure}`)
  })
  await check(`${language}: the console has no errors`, async () => assert(errors.length === 0, errors.join(' | ')))
  await page.context().close()
}

/** Waits until the wall shows this amount. */
const amount = (page, yuan) =>
  page.waitForFunction((wanted) => {
    const shown = document.querySelector('[data-panel=amount] [data-value]')?.getAttribute('data-value')
    return Number(shown?.replace(/[^\d.]/g, '')) === wanted
  }, yuan)

async function killed(browser, server, language) {
  const [{ page: job }, { page: wall }] = [await openPage(browser, server.url, SIZE), await openPage(browser, server.url, [1920, 1080])]
  await check(`${language}: job page and wall are live before the server is killed`, async () => {
    await job.goto(`${server.url}/?lang=${language}`)
    await wall.goto(`${server.url}/screen/orders?lang=${language}`)
    await shows(job, language, 'RUNNING')
    await job.locator('[data-status=live]').waitFor()
    await sendTotal(server, 100)
    await amount(wall, 100)
  })
  await check(`${language}: kill -9 of the server: page and wall say so and keep what they had`, async () => {
    await server.end('SIGKILL')
    const alert = (await job.locator('.el-alert').innerText()).trim()
    assert(alert === TEXT[language].away, `the page says "${alert}"`)
    await job.locator('[data-status=reconnecting]').waitFor()
    await shows(job, language, 'RUNNING')
    await wall.locator('[data-status=reconnecting]').first().waitFor()
    assert((await wall.locator('header').first().innerText()).includes(TEXT[language].wallAway), 'the wall does not say that it reconnects')
    await amount(wall, 100)
    await shoot(job, `killed-overview-${language}`)
    await shoot(wall, `killed-wall-${language}`)
  })
  await check(`${language}: the server is back: the page is live again by itself, and new figures come`, async () => {
    await server.start()
    await job.locator('[data-status=live]').waitFor()
    await job.locator('.el-alert').waitFor({ state: 'detached' })
    await shows(job, language, 'RUNNING')
    await wall.locator('main[data-status=live]').waitFor()
    await sendTotal(server, 250)
    await amount(wall, 250)
    await shoot(wall, `recovered-wall-${language}`)
  })
  await job.context().close()
  await wall.context().close()
}

async function uploads(open, closed) {
  const put = (server, headers) => server.send('PUT', '/api/programs/totals.toml', JOB, headers)
  const told = (answer, status, words) => {
    const lines = answer.body?.errors
    assert(answer.status === status && lines.length === 1 && lines[0].includes(words), `${answer.status} ${JSON.stringify(answer.body)}`)
  }
  await check('a program is uploaded with the administrator token only', async () => {
    told(await put(open), 403, 'only with an administrator token')
    told(await put(closed), 401, 'send the administrator token')
    told(await put(closed, { authorization: 'Bearer nonsense' }), 401, 'the administrator token is wrong')
    assert(!existsSync(join(closed.jobs, 'totals.toml')), 'a refused program was stored')
    assert((await put(closed, { authorization: `Bearer ${TOKEN}` })).status === 201, 'the right token was refused')
    assert((await put(closed, { authorization: `Bearer ${TOKEN}` })).status === 204, 'a second upload was refused')
  })
}

async function administrator(browser, server, language) {
  const { page } = await openPage(browser, server.url, SIZE)
  const { token } = TEXT[language]
  const box = page.getByRole('dialog', { name: token.title })
  const answer = async (text) => {
    await box.locator('input[type=password]').fill(text)
    await press(box, token.go)
  }
  await page.goto(`${server.url}/?lang=${language}`)
  await check(`${language}: a change asks for the token, and giving up changes nothing`, async () => {
    await shows(page, language, 'RUNNING')
    await act(page, language, 'cancel')
    await press(box, token.back)
    await page.locator('.el-message--error', { hasText: token.none }).waitFor()
    await shows(page, language, 'RUNNING')
  })
  await check(`${language}: a wrong token is refused in a clear line and asked for again`, async () => {
    await act(page, language, 'cancel')
    for (const wrong of ['nonsense', '令牌']) {
      await answer(wrong)
      await box.filter({ hasText: token.wrong }).waitFor()
    }
    await shoot(page, `token-wrong-${language}`)
    await shows(page, language, 'RUNNING')
  })
  await check(`${language}: the right token is taken, and not asked for again in this tab`, async () => {
    await answer(TOKEN)
    await shows(page, language, 'CANCELED')
    await act(page, language, 'restart')
    await shows(page, language, 'RUNNING')
    assert((await box.count()) === 0, 'the page asks again')
  })
  await page.context().close()
}

keepShots(options.shots)
const begun = Date.now()
const browser = await launch()
await withFolder(async (folder) => {
  const program = join(options.bin, 'tidemill')
  const open = new TestServer(program, join(folder, 'open'))
  const closed = new TestServer(program, join(folder, 'closed'), TOKEN)
  try {
    writeFileSync(join(open.jobs, 'totals.toml'), JOB)
    await Promise.all([open.start(), closed.start()])
    await uploads(open, closed)
    const id = await submit(open)
    await submit(closed, { authorization: `Bearer ${TOKEN}` })
    for (const language of ['zh', 'en']) await jobLife(browser, open, language, id)
    for (const language of ['zh', 'en']) await administrator(browser, closed, language)
    for (const language of ['zh', 'en']) await killed(browser, open, language)
  } catch (error) {
    fail('the test itself', error?.stack ?? String(error))
  } finally {
    await browser.close()
    for (const server of [open, closed]) await server.remove().catch((error) => fail('the end of a server', String(error)))
  }
})
console.log(`${Math.round((Date.now() - begun) / 1000)} s`)
conclude()

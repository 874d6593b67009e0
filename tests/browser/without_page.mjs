#!/usr/bin/env node
// A server that was built without Node, in a real browser: it must tell how to build the page, and its API must answer.
//
//   node tests/browser/without_page.mjs --program <tidemill>        (scripts/without_node.sh builds one and runs this)
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { assert, check, conclude, fail, keepShots, launch, openPage, shoot } from './browser.mjs'
import { TestServer, withFolder } from './testServer.mjs'

const { values: options } = parseArgs({ options: { program: { type: 'string' }, shots: { type: 'string' } } })
keepShots(options.shots)
const browser = await launch()
await withFolder(async (folder) => {
  const server = new TestServer(options.program, join(folder, 'server'))
  try {
    await server.start()
    const { page, errors, strangers } = await openPage(browser, server.url, [1280, 720])
    for (const address of ['/', '/screen/orders', '/jobs/some/page']) {
      await check(`${address} tells how to build the page`, async () => {
        await page.goto(server.url + address)
        const text = await page.locator('body').innerText()
        for (const wanted of ['built without its page', 'Node 20.19', 'make web', '重新构建']) assert(text.includes(wanted), `no "${wanted}" in: ${text}`)
      })
    }
    await shoot(page, 'without-page')
    await check('the links of the notice answer', async () => {
      for (const path of await page.locator('a').evaluateAll((links) => links.map((link) => link.getAttribute('href')))) {
        const answer = await page.request.get(server.url + path)
        assert(answer.ok(), `${path} answers ${answer.status()}`)
      }
    })
    await check('no console error, no request to another host', async () => {
      // The browser asks for an icon by itself; the notice answers that address, too.
      assert(errors.length === 0 && strangers.length === 0, [...errors, ...strangers].join(' | '))
    })
  } catch (error) {
    fail('the test itself', error?.stack ?? String(error))
  } finally {
    await browser.close()
    await server.remove().catch((error) => fail('the end of the server', String(error)))
  }
})
conclude()

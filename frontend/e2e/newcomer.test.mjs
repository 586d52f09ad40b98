// What somebody sees who has run `script/server` and read nothing.

import { mkdtemp, rm } from 'node:fs/promises';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { freePort, spawnBinary } from '../../crates/server/e2e/support/server.mjs';
import { artefact, mark, message, openRoom, until, useBrowser, write } from './support.mjs';

describe('a newcomer', () => {
  const browsers = useBrowser();
  let [url, folder, server] = [];
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'starling-dev-'));
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    server = spawnBinary(['dev', '--data', folder, '--port', String(port)], {});
    let log = '';
    for (const stream of [server.stdout, server.stderr]) stream.on('data', (chunk) => { log = (log + chunk).slice(-5000); });
    await until(async () => {
      if (server.exitCode !== null) throw Object.assign(new Error(log), { final: true });
      return (await fetch(`${url}/readyz`)).ok;
    }, { ms: 60_000, every: 200, what: 'starling dev' });
  });
  after(async () => {
    if (server && server.exitCode === null) {
      server.kill('SIGTERM');
      await once(server, 'close');
    }
    await rm(folder, { recursive: true, force: true });
  });

  test('clicks from the first page to a conversation between two windows', async () => {
    const context = await browsers.context();
    const page = await context.newPage();
    await page.goto(url);
    await page.getByRole('button', { name: 'Log in as Alice' }).waitFor();
    await page.screenshot({ path: artefact('newcomer-1.png') });
    await page.getByRole('button', { name: 'Log in as Alice' }).click();
    const link = page.getByRole('main').getByRole('link', { name: 'Open a window as Bob' });
    await link.waitFor();
    await page.screenshot({ path: artefact('newcomer-2.png') });
    const [other] = await Promise.all([context.waitForEvent('page'), link.click()]);
    await other.getByRole('button', { name: 'Account: Bob Brown' }).waitFor();
    await Promise.all([openRoom(page, 'Bob Brown'), openRoom(other, 'Alice Adams')]);
    await write(page, 'Hello, other window');
    await message(other, 'Hello, other window').waitFor();
    await mark(page, 'Hello, other window', 'read').waitFor();
    await Promise.all([page.reload(), other.reload()]);
    await page.getByRole('button', { name: 'Account: Alice Adams' }).waitFor();
    await other.getByRole('button', { name: 'Account: Bob Brown' }).waitFor();
  });
});

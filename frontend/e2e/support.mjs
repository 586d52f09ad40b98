// Browsers for the tests: Debian's Chromium, the real app, a real server.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { after, afterEach, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

export { useServer } from '../../crates/server/e2e/support/fixture.mjs';
export { api } from '../../crates/server/e2e/support/client.mjs';
export { until } from '../../crates/server/e2e/support/wait.mjs';

export const PHONE = { width: 390, height: 844 };
export const DESKTOP = { width: 1280, height: 800 };
/** What a step may take on a busy machine. */
const PATIENCE_MS = 15_000;

const artefacts = fileURLToPath(new URL('./artefacts/', import.meta.url));
mkdirSync(artefacts, { recursive: true });
export const artefact = (name) => artefacts + name;

/** A browser for the tests of a file. Whatever a page complains of fails the test. */
export function useBrowser() {
  const held = new Browsers();
  before(async () => { await held.start(); });
  afterEach(async (context) => held.tidy(context));
  after(() => held.stop());
  return held;
}

class Browsers {
  #browser;
  #contexts = [];
  #complaints = [];

  async start() {
    this.#browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
  }

  async stop() {
    await this.#browser?.close();
  }

  /** A browser profile of its own. */
  async context({ viewport = DESKTOP, theme = 'light', locale = 'en-GB', ...options } = {}) {
    const context = await this.#browser.newContext({
      viewport, colorScheme: theme, locale, timezoneId: 'Europe/Berlin', reducedMotion: 'reduce', ...options,
    });
    context.setDefaultTimeout(PATIENCE_MS);
    this.#contexts.push(context);
    context.on('weberror', (error) => this.#complaints.push(error.error().stack ?? String(error.error())));
    context.on('console', (message) => {
      if (message.type() === 'error' && /Content Security Policy|Refused to|Warning:|React/.test(message.text())) this.#complaints.push(message.text());
    });
    return context;
  }

  /** A page of somebody who has logged in before; `via` is another address of the server. */
  async openAs(world, user, { path = '/', via = world.url, ...options } = {}) {
    const context = await this.context(options);
    await logIn(context, world, user);
    const page = await context.newPage();
    await page.goto(via + path);
    return page;
  }

  async tidy(test) {
    const complaints = this.#complaints.splice(0);
    if (test?.passed === false || complaints.length > 0) await this.#shoot(test?.name ?? 'test');
    await Promise.all(this.#contexts.splice(0).map((context) => context.close()));
    assert.deepEqual(complaints, [], 'the pages complain');
  }

  async #shoot(name) {
    const pages = this.#contexts.flatMap((context) => context.pages());
    await Promise.all(pages.map((page, index) =>
      page.screenshot({ path: artefact(`failed-${name.replace(/\W+/g, '-').slice(0, 60)}-${index}.png`), timeout: 5000 }).catch(() => {})));
  }
}

/** Puts a fresh session of the user into the browser, as the log-in page would. */
export async function logIn(context, world, user) {
  const { accessToken, refreshToken, user: profile, expiresIn } = await (await fetch(`${world.url}/api/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ username: user.username, password: user.password }),
  })).json();
  const session = { user: profile, accessToken, refreshToken, expiresAt: Date.now() + expiresIn * 1000 };
  await context.addInitScript(({ session, id }) => {
    // A frame without an address has no storage. Once: from then on the app keeps it.
    if (!location.protocol.startsWith('http')) return;
    if (localStorage.getItem('e2e') === String(id)) return;
    localStorage.setItem('e2e', String(id));
    localStorage.setItem(`starling.session.${id}`, JSON.stringify(session));
    localStorage.setItem('starling.account', String(id));
  }, { session, id: profile.id });
}

/** An address of the server whose sockets can be cut while pages and calls still come through. */
export async function startGate(world) {
  const target = new URL(world.url);
  const sockets = new Set();
  let shut = false;
  const closed = ({ url }) => shut && url.startsWith('/socket.io');
  const options = ({ url, method, headers }) => ({ host: target.hostname, port: target.port, path: url, method, headers });
  const gate = http.createServer((request, response) => {
    if (closed(request)) return request.socket.destroy();
    const onward = http.request(options(request), (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    return request.pipe(onward);
  });
  gate.on('upgrade', (request, socket, head) => {
    if (closed(request)) return socket.destroy();
    const onward = net.connect(target.port, target.hostname, () => {
      const lines = Object.entries(request.headers).map(([name, value]) => `${name}: ${value}`);
      onward.write(`GET ${request.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    sockets.add(socket);
    for (const [one, other] of [[socket, onward], [onward, socket]]) {
      one.on('error', () => other.destroy());
      one.on('close', () => { other.destroy(); sockets.delete(socket); });
    }
    return undefined;
  });
  gate.listen(0, '127.0.0.1');
  await once(gate, 'listening');
  return {
    url: `http://127.0.0.1:${gate.address().port}`,
    shut() {
      shut = true;
      sockets.forEach((socket) => socket.destroy());
    },
    open() { shut = false; },
    close() {
      this.shut();
      gate.closeAllConnections();
      gate.close();
    },
  };
}

// --- What people do ---

export const composer = (page) => page.locator('#composer');
export const list = (page) => page.getByRole('log');
export const message = (page, text) => list(page).getByRole('article').filter({ hasText: text });
export const mark = (page, text, state) => message(page, text).locator(`[data-state="${state}"]`);
export const roomLink = (page, name) => page.getByRole('navigation').getByRole('link').filter({ hasText: name });

export async function write(page, text) {
  await composer(page).fill(text);
  await composer(page).press('Enter');
}

export async function openRoom(page, name) {
  await roomLink(page, name).click();
  await composer(page).waitFor();
}

/** The menu of a message. */
export async function act(page, text, action) {
  await message(page, text).last().hover();
  await message(page, text).last().getByRole('button', { name: 'Actions for this message' }).click();
  await page.getByRole('menuitem', { name: action, exact: true }).click();
}

export const phase = (page, name) => page.locator(`[data-phase="${name}"]`).waitFor({ state: 'attached' });

// The web app's page, and the API's description of itself.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { useServer } from '../support/fixture.mjs';

describe('the page', () => {
  const world = useServer();

  test('it and all that it names is served, under a policy without inline scripts and styles', async () => {
    const page = await fetch(`${world.url}/`, { headers: { accept: 'text/html' } });
    assert.equal(page.status, 200);
    assert.equal(page.headers.get('cache-control'), 'no-cache');
    assert.match(page.headers.get('content-security-policy'), /default-src 'self'/);
    assert.match(page.headers.get('content-security-policy'), /style-src 'self';/);
    assert.doesNotMatch(page.headers.get('content-security-policy'), /unsafe/);
    const html = await page.text();
    assert.doesNotMatch(html, /starling-demo/, 'demo users are of `starling dev` only');
    const names = [...html.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, name]) => name);
    assert.ok(names.length >= 4, `${names.join()}: is the app built? npm --prefix frontend run build`);
    const kinds = { css: /^text\/css/, js: /^text\/javascript/, svg: /^image\/svg/, webmanifest: /^application\/manifest/ };
    for (const name of names) {
      const { status, headers } = await fetch(world.url + name);
      assert.equal(status, 200, name);
      assert.match(headers.get('content-type'), kinds[name.split('.').at(-1)], name);
      assert.match(headers.get('cache-control'), name.startsWith('/assets/') ? /immutable/ : /no-cache/, name);
    }
    const script = names.find((name) => name.startsWith('/assets/') && name.endsWith('.js'));
    for (const [accepted, encoding] of [['gzip, br', 'br'], ['gzip', 'gzip'], ['identity', null], ['br;q=0', null]]) {
      const answer = await fetch(world.url + script, { headers: { 'accept-encoding': accepted } });
      assert.equal(answer.headers.get('content-encoding'), encoding, accepted);
      assert.match(await answer.text(), /import/, accepted);
    }
  });

  test('what is the same is not sent again', async () => {
    const { headers } = await fetch(`${world.url}/`);
    const again = await fetch(`${world.url}/`, { headers: { 'if-none-match': headers.get('etag') } });
    assert.equal(again.status, 304);
  });

  test('a place in the app is the page for a browser, and nothing for others', async () => {
    const get = (path, accept) => fetch(world.url + path, { headers: { accept } });
    for (const path of ['/rooms/7', '/login', '/rooms/7?at=3']) {
      assert.match((await get(path, 'text/html,*/*')).headers.get('content-type'), /^text\/html/, path);
      assert.equal((await get(path, 'application/json')).status, 404, path);
    }
    for (const path of ['/api/nothing', '/assets/gone.js']) assert.equal((await get(path, 'text/html')).status, 404, path);
    assert.doesNotMatch(await (await get('/..%2f..%2fCargo.toml', 'text/html')).text(), /workspace/);
  });

  test('a method that a path does not take is answered in words', async () => {
    for (const [path, method] of [['/', 'POST'], ['/healthz', 'DELETE'], ['/api/rooms', 'PUT']]) {
      const answer = await fetch(world.url + path, { method });
      assert.equal(answer.status, 405, path);
      assert.ok((await answer.json()).error.message, path);
    }
  });

  test('the OpenAPI document says what needs a token and how any call may be refused', async () => {
    const { paths, components } = await (await fetch(`${world.url}/api/openapi.json`)).json();
    assert.equal(components.securitySchemes.accessToken.scheme, 'bearer');
    for (const [path, operations] of Object.entries(paths)) {
      const entrance = /^\/auth\/(register|login|refresh)$/.test(path);
      for (const [method, operation] of Object.entries(operations)) {
        const name = `${method} ${path}`;
        assert.deepEqual(operation.security, entrance ? undefined : [{ accessToken: [] }], name);
        for (const status of ['503', entrance ? '429' : '401', ...operation.requestBody ? ['400', '413'] : []]) {
          assert.ok(operation.responses[status]?.content, `${name}: ${status}`);
        }
      }
    }
  });

  test('the OpenAPI document names every path of the contract', async () => {
    const { paths } = await (await fetch(`${world.url}/api/openapi.json`)).json();
    assert.deepEqual(Object.keys(paths).sort(), [
      '/auth/login', '/auth/logout', '/auth/refresh', '/auth/register', '/messages/search', '/rooms', '/rooms/{id}',
      '/rooms/{id}/members', '/rooms/{id}/members/{userId}', '/rooms/{id}/messages', '/users', '/users/me',
    ]);
  });
});

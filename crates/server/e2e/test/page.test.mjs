// The demo page, and the API's description of itself.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { useServer } from '../support/fixture.mjs';

describe('the page', () => {
  const world = useServer();

  test('it and all that it names is served, under a policy without inline scripts', async () => {
    const page = await fetch(`${world.url}/`);
    assert.equal(page.status, 200);
    assert.match(page.headers.get('content-security-policy'), /default-src 'self'/);
    assert.doesNotMatch(page.headers.get('content-security-policy'), /unsafe-inline/);
    const names = [...(await page.text()).matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, name]) => name);
    const script = await (await fetch(`${world.url}/app.js`)).text();
    names.push(...[...script.matchAll(/^import .* from '\.(\/[^']+)'/gm)].map(([, name]) => name));
    assert.ok(names.length >= 3, names.join());
    for (const name of names) {
      const { status, headers } = await fetch(world.url + name);
      assert.equal(status, 200, name);
      assert.match(headers.get('content-type'), name.endsWith('.css') ? /^text\/css/ : /^text\/javascript/, name);
    }
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

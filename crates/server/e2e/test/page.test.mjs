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

  test('the OpenAPI document names every path of the contract', async () => {
    const { paths } = await (await fetch(`${world.url}/api/openapi.json`)).json();
    assert.deepEqual(Object.keys(paths).sort(), [
      '/auth/login', '/auth/logout', '/auth/refresh', '/auth/register', '/messages/search', '/rooms', '/rooms/{id}',
      '/rooms/{id}/members', '/rooms/{id}/members/{userId}', '/rooms/{id}/messages', '/users', '/users/me',
    ]);
  });
});

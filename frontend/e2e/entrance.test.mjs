// Into the app and out of it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { composer, logIn, mark, phase, startGate, until, useBrowser, useServer, write } from './support.mjs';

describe('the entrance', () => {
  const world = useServer();
  const browsers = useBrowser();

  test('an account is made, with every mistake named at its field', async () => {
    const taken = await world.person();
    const page = await (await browsers.context()).newPage();
    await page.goto(`${world.url}/`);
    await page.getByRole('link', { name: 'Create account' }).click();
    const submit = page.getByRole('button', { name: 'Create account' });
    await submit.click();
    assert.equal(await page.getByText('Please fill this in').count(), 3);
    await page.getByLabel('Username').fill('a b');
    await page.getByLabel('E-mail').fill('nowhere');
    await page.getByRole('textbox', { name: 'Password' }).fill('short');
    await submit.click();
    await page.getByText('An address such as you@example.com').waitFor();
    assert.equal(await page.getByRole('alert').count(), 3);
    await page.getByLabel('Username').fill(taken.username);
    await page.getByLabel('E-mail').fill(`new.${process.pid}@example.test`);
    await page.getByRole('textbox', { name: 'Password' }).fill('long enough');
    await submit.click();
    await page.getByRole('alert').waitFor();
    await page.getByLabel('Username').fill(`new.${process.pid}`);
    await page.getByLabel('Display name').fill('Newcomer');
    await submit.click();
    await page.getByText('No conversations yet').waitFor();
    await page.getByRole('button', { name: 'Account: Newcomer' }).waitFor();
  });

  test('a wrong password is told, a right one leads to where one wanted to go, and a reload stays there', async () => {
    const [alice, bob] = [await world.person({ displayName: 'Alice' }), await world.person({ displayName: 'Bob' })];
    const room = await world.direct(alice, bob);
    const page = await (await browsers.context()).newPage();
    await page.goto(`${world.url}/rooms/${room.id}`);
    await page.getByLabel('Username or e-mail').fill(alice.username);
    await page.getByRole('textbox', { name: 'Password' }).fill('not the password');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByText('Username or password is wrong.').waitFor();
    await page.getByRole('textbox', { name: 'Password' }).fill(alice.password);
    await page.getByRole('button', { name: 'Log in' }).click();
    await composer(page).waitFor();
    // Nothing of the log-in page is drawn on a reload, not for a frame.
    await page.addInitScript(() => {
      new MutationObserver(() => {
        if (document.querySelector('input[type=password]')) document.documentElement.dataset.flashed = 'yes';
      }).observe(document, { childList: true, subtree: true });
    });
    await page.reload();
    await composer(page).waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.flashed), undefined);
    assert.doesNotMatch(page.url(), /token/i);
  });

  test('an expired token is renewed once, whatever number of tabs asks', async () => {
    const alice = await world.person();
    const context = await browsers.context();
    await logIn(context, world, alice);
    await context.addInitScript((id) => {
      if (!location.protocol.startsWith('http')) return;
      const key = `starling.session.${id}`;
      const session = JSON.parse(localStorage.getItem(key) ?? 'null');
      if (session && !sessionStorage.getItem('aged')) {
        sessionStorage.setItem('aged', 'yes');
        localStorage.setItem(key, JSON.stringify({ ...session, expiresAt: 0 }));
      }
    }, alice.id);
    const pages = await Promise.all([context.newPage(), context.newPage(), context.newPage()]);
    await Promise.all(pages.map((page) => page.goto(`${world.url}/`)));
    await Promise.all(pages.map((page) => phase(page, 'online')));
    await Promise.all(pages.map((page) => page.getByText('No conversations yet').waitFor()));
  });

  test('logging out ends it in every tab, and nothing unsent stays in the browser', async () => {
    const [alice, bob] = [await world.person(), await world.person()];
    const room = await world.direct(alice, bob);
    const gate = await startGate(world);
    try {
      const page = await browsers.openAs(world, alice, { via: gate.url, path: `/rooms/${room.id}` });
      await phase(page, 'online');
      const second = await page.context().newPage();
      await second.goto(`${gate.url}/`);
      await phase(second, 'online');
      await composer(page).waitFor();
      gate.shut();
      await phase(page, 'reconnecting');
      await write(page, 'never sent');
      await mark(page, 'never sent', 'sending').waitFor();
      await page.getByRole('link', { name: 'Back to the conversations' }).count();
      await page.getByRole('button', { name: /^Account:/ }).click();
      await page.getByRole('menuitem', { name: 'Log out' }).click();
      await page.getByRole('button', { name: 'Log in' }).waitFor();
      await second.getByText('Your session has ended.').waitFor();
      await until(() => page.evaluate(() => new Promise((done, fail) => {
        const open = indexedDB.open('starling');
        open.onerror = fail;
        open.onsuccess = () => {
          const count = open.result.transaction('outbox').objectStore('outbox').count();
          count.onsuccess = () => { open.result.close(); done(count.result === 0); };
        };
      })), { what: 'the outbox to be empty' });
      assert.deepEqual(await page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith('starling.session'))), []);
    } finally {
      gate.close();
    }
  });

  test('a session that is ended elsewhere ends here at once', async () => {
    const alice = await world.person();
    const page = await browsers.openAs(world, alice);
    await phase(page, 'online');
    const token = await page.evaluate((id) => JSON.parse(localStorage.getItem(`starling.session.${id}`)).accessToken, alice.id);
    const answer = await fetch(`${world.url}/api/auth/logout`, { method: 'POST', headers: { authorization: `Bearer ${token}` } });
    assert.equal(answer.status, 204);
    await page.getByText('You were logged out from another place.').waitFor();
  });

  test('two people share a browser, each in a window', async () => {
    const [alice, bob] = [await world.person({ displayName: 'Alice' }), await world.person({ displayName: 'Bob' })];
    const page = await browsers.openAs(world, alice);
    await page.getByRole('button', { name: 'Account: Alice' }).click();
    await page.getByRole('menuitem', { name: 'Add another account' }).click();
    await page.getByLabel('Username or e-mail').fill(bob.username);
    await page.getByRole('textbox', { name: 'Password' }).fill(bob.password);
    await page.getByRole('button', { name: 'Log in', exact: true }).click();
    await page.getByRole('button', { name: 'Account: Bob' }).click();
    await page.getByRole('menuitem', { name: 'Switch to Alice' }).click();
    await page.getByRole('button', { name: 'Account: Alice' }).waitFor();
    await page.reload();
    await page.getByRole('button', { name: 'Account: Alice' }).waitFor();
  });
});

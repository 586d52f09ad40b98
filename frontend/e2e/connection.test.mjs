// Connections get lost, servers restart, pages are reloaded: nothing is lost, nothing comes twice.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  artefact, composer, list, logIn, mark, message, openRoom, phase, roomLink, startGate, until, useBrowser, useServer, write,
} from './support.mjs';

describe('a connection that gets lost', () => {
  const world = useServer();
  const browsers = useBrowser();
  let gate;
  before(async () => { gate = await startGate(world); });
  after(() => gate?.close());

  async function pair() {
    const [alice, bob] = await Promise.all([world.person({ displayName: 'Alice' }), world.person({ displayName: 'Bob' })]);
    const room = await world.direct(alice, bob);
    return { alice, bob, room, path: `/rooms/${room.id}` };
  }
  const stored = async (roomId) => {
    const { rows } = await world.server.db.query('SELECT content FROM messages WHERE room_id = $1 ORDER BY seq', [roomId]);
    return rows.map(({ content }) => content);
  };
  const shown = (page) => list(page).getByRole('article').evaluateAll((rows) =>
    rows.map((row) => row.querySelector('[dir=auto]')?.textContent));

  test('a server that stops and comes back: the banner says so, and what was written meanwhile arrives once and in order', async () => {
    const { alice, bob, room, path } = await pair();
    const [one, two] = await Promise.all([browsers.openAs(world, alice, { path }), browsers.openAs(world, bob, { path })]);
    await Promise.all([phase(one, 'online'), phase(two, 'online'), composer(one).waitFor(), composer(two).waitFor()]);
    await write(one, 'before');
    await message(two, 'before').waitFor();

    await world.server.kill('SIGTERM');
    await one.getByText('Connection lost. Reconnecting…').waitFor();
    const texts = ['while away 1', 'while away 2', 'while away 3'];
    for (const text of texts) await write(one, text);
    for (const text of texts) await mark(one, text, 'sending').waitFor();
    await one.screenshot({ path: artefact('unsent.png') });
    await two.getByText('Connection lost. Reconnecting…').waitFor();
    await write(two, 'from the other side');
    await mark(two, 'from the other side', 'sending').waitFor();

    await world.server.start();
    await one.getByText('Back online.').waitFor();
    await phase(two, 'online');
    for (const text of texts) await mark(one, text, 'read').waitFor();
    await message(one, 'from the other side').waitFor();
    await until(async () => (await stored(room.id)).length === 5, { what: 'all to be stored' });
    const all = await stored(room.id);
    assert.deepEqual(all.filter((text) => texts.includes(text)), texts);
    await until(async () => JSON.stringify(await shown(one)) === JSON.stringify(all), { what: 'the sender to see what is stored' });
    await until(async () => JSON.stringify(await shown(two)) === JSON.stringify(all), { what: 'the other to see what is stored' });
  });

  test('a reload keeps a message that was not sent yet, and sends it once', async () => {
    const { alice, room, path } = await pair();
    const page = await browsers.openAs(world, alice, { path, via: gate.url });
    await phase(page, 'online');
    await composer(page).waitFor();
    gate.shut();
    await phase(page, 'reconnecting');
    await write(page, 'survives a reload');
    await mark(page, 'survives a reload', 'sending').waitFor();
    await page.reload();
    await mark(page, 'survives a reload', 'sending').waitFor();
    assert.deepEqual(await stored(room.id), []);
    gate.open();
    await mark(page, 'survives a reload', 'sent').waitFor();
    assert.equal(await message(page, 'survives a reload').count(), 1);
    assert.deepEqual(await stored(room.id), ['survives a reload']);
  });

  test('what others edited, deleted and wrote while the connection was away is there when it is back', async () => {
    const { alice, bob, room, path } = await pair();
    const client = await world.connect(bob);
    const sent = [];
    for (const text of ['stays', 'will change', 'will go']) sent.push((await client.send(room.id, text)));
    const page = await browsers.openAs(world, alice, { path, via: gate.url });
    await message(page, 'will go').waitFor();
    await phase(page, 'online');
    gate.shut();
    await phase(page, 'reconnecting');
    await client.ask('message:edit', { messageId: sent[1].id, content: 'has changed' });
    await client.ask('message:delete', { messageId: sent[2].id });
    for (let i = 1; i <= 120; i += 1) await client.send(room.id, `missed ${i}.`);
    gate.open();
    await message(page, 'missed 120.').waitFor();
    await page.keyboard.press('Escape');
    await list(page).focus();
    await until(async () => {
      await list(page).evaluate((box) => { box.scrollTop = 0; });
      return await message(page, 'stays').count() === 1;
    }, { what: 'the older messages' });
    await message(page, 'has changed').waitFor();
    assert.equal(await message(page, 'will go').count(), 0);
  });

  test('a browser that is offline says so', async () => {
    const { alice, path } = await pair();
    const page = await browsers.openAs(world, alice, { path });
    await phase(page, 'online');
    await page.context().setOffline(true);
    await page.getByText('You are offline.').waitFor();
    await write(page, 'kept');
    await mark(page, 'kept', 'sending').waitFor();
    await page.context().setOffline(false);
    await mark(page, 'kept', 'sent').waitFor();
  });

  test('two tabs of one user agree: on what is unsent, what is sent and what is read', async () => {
    const { alice, bob, room, path } = await pair();
    const context = await browsers.context();
    await logIn(context, world, alice);
    const [one, two] = [await context.newPage(), await context.newPage()];
    await one.goto(gate.url + path);
    await two.goto(gate.url + path);
    await Promise.all([phase(one, 'online'), phase(two, 'online'), composer(one).waitFor(), composer(two).waitFor()]);
    await write(one, 'seen in both');
    await mark(two, 'seen in both', 'sent').waitFor();

    gate.shut();
    await Promise.all([phase(one, 'reconnecting'), phase(two, 'reconnecting')]);
    await write(one, 'waits in both');
    await mark(two, 'waits in both', 'sending').waitFor();
    gate.open();
    await Promise.all([mark(one, 'waits in both', 'sent').waitFor(), mark(two, 'waits in both', 'sent').waitFor()]);
    assert.deepEqual(await stored(room.id), ['seen in both', 'waits in both']);

    await Promise.all([one.goto(`${gate.url}/`), two.goto(`${gate.url}/`)]);
    await Promise.all([phase(one, 'online'), phase(two, 'online')]);
    await (await world.connect(bob)).send(room.id, 'unread in both');
    await Promise.all([one, two].map((page) => roomLink(page, 'Bob').getByText('1 unread message').waitFor({ state: 'attached' })));
    await openRoom(one, 'Bob');
    await roomLink(two, 'Bob').getByText('1 unread message').waitFor({ state: 'detached' });
  });
});

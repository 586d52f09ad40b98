// Two people, two browsers.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  act, artefact, composer, list, mark, message, openRoom, roomLink, until, useBrowser, useServer, write,
} from './support.mjs';

describe('a conversation', () => {
  const world = useServer();
  const browsers = useBrowser();
  let count = 0;

  async function pair() {
    count += 1;
    const names = [`Alice ${count}`, `Bob ${count}`];
    const [alice, bob] = await Promise.all(names.map((displayName, i) =>
      world.person({ displayName, username: `${i ? 'bob' : 'alice'}${count}.${process.pid}` })));
    return { alice, bob, names };
  }

  test('begins by searching for somebody, and messages pass through all states', async () => {
    const { alice, bob, names } = await pair();
    const page = await browsers.openAs(world, alice);
    await page.getByText('No conversations yet').waitFor();
    await page.getByRole('searchbox', { name: 'Search people and messages' }).fill(names[1].slice(0, 5));
    await page.getByRole('region', { name: 'People' }).getByRole('button').filter({ hasText: names[1] }).click();
    await write(page, 'Are you there?');
    await mark(page, 'Are you there?', 'sent').waitFor();

    const other = await browsers.openAs(world, bob);
    await roomLink(other, names[0]).getByText('1 unread message').waitFor({ state: 'attached' });
    await mark(page, 'Are you there?', 'delivered').waitFor();
    await openRoom(other, names[0]);
    await message(other, 'Are you there?').waitFor();
    await mark(page, 'Are you there?', 'read').waitFor();
    await roomLink(other, names[0]).getByText('1 unread message').waitFor({ state: 'detached' });

    await write(other, 'Yes!');
    await message(page, 'Yes!').waitFor();
    await mark(other, 'Yes!', 'read').waitFor();
  });

  test('a message that the server refuses says why, and can be retried and discarded', async () => {
    const { alice, bob } = await pair();
    const room = await world.direct(alice, bob);
    const page = await browsers.openAs(world, alice, { path: `/rooms/${room.id}` });
    await composer(page).waitFor();
    await write(page, 'no\u0000good');
    await mark(page, 'good', 'failed').waitFor();
    await page.screenshot({ path: artefact('refused.png') });
    await page.getByRole('button', { name: 'Retry' }).click();
    await mark(page, 'good', 'failed').waitFor();
    await page.getByRole('button', { name: 'Discard' }).click();
    await message(page, 'good').waitFor({ state: 'detached' });
    await write(page, 'all good');
    await mark(page, 'all good', 'sent').waitFor();
  });

  test('shows who types, replies, edits, reactions and deletions to both', async () => {
    const { alice, bob, names } = await pair();
    const room = await world.direct(alice, bob);
    const path = `/rooms/${room.id}`;
    const [one, two] = await Promise.all([browsers.openAs(world, alice, { path }), browsers.openAs(world, bob, { path })]);
    await Promise.all([composer(one).waitFor(), composer(two).waitFor()]);
    await write(one, 'The first');
    await message(two, 'The first').waitFor();

    await composer(two).pressSequentially('typing');
    await one.getByText(`${names[1].split(' ')[0]} is typing…`).waitFor();
    await composer(two).fill('');

    await act(two, 'The first', 'Reply');
    await two.getByText(`Reply to ${names[0]}`).waitFor();
    await write(two, 'An answer');
    const quote = message(one, 'An answer').getByRole('button', { name: 'The first' });
    await quote.waitFor();

    await composer(one).press('ArrowUp');
    await until(async () => await composer(one).inputValue() === 'The first', { what: 'the last message in the field' });
    await write(one, 'The first, edited');
    await message(two, 'The first, edited').getByText('edited', { exact: true }).waitFor();

    await message(two, 'The first, edited').first().hover();
    await message(two, 'The first, edited').first().getByRole('button', { name: 'Add a reaction' }).click();
    await two.getByRole('button', { name: '👍' }).click();
    const reaction = one.getByRole('button', { name: `👍 1, ${names[1]}` });
    await reaction.click();
    await two.getByRole('button', { name: /👍 2, .*You/ }).waitFor();
    await one.getByRole('button', { name: /👍 2/, pressed: true }).waitFor();

    await act(two, 'An answer', 'Delete');
    await two.getByRole('button', { name: 'Delete', exact: true }).click();
    await message(one, 'Message deleted').waitFor();
    assert.equal(await message(one, 'An answer').count(), 0);
  });

  test('text stays text; links and code are shown as such', async () => {
    const { alice, bob } = await pair();
    const room = await world.direct(alice, bob);
    const page = await browsers.openAs(world, alice, { path: `/rooms/${room.id}` });
    await composer(page).waitFor();
    await write(page, '<img src=x onerror=alert(1)> see https://example.com/a?b=1, `let x` and javascript:alert(1)');
    const row = message(page, '<img src=x onerror=alert(1)>');
    await row.waitFor();
    assert.equal(await row.locator('img').count(), 0);
    assert.deepEqual(await row.locator('a').evaluateAll((all) => all.map((one) => one.getAttribute('href'))), ['https://example.com/a?b=1']);
    assert.equal(await row.locator('code').textContent(), 'let x');
  });

  test('4,000 characters are counted, and one more is not sent', async () => {
    const { alice, bob } = await pair();
    const room = await world.direct(alice, bob);
    const page = await browsers.openAs(world, alice, { path: `/rooms/${room.id}` });
    await composer(page).waitFor();
    await composer(page).fill('😀'.repeat(4001));
    await page.getByText('1 too many').waitFor();
    assert.ok(await page.getByRole('button', { name: 'Send' }).isDisabled());
    await composer(page).fill('😀'.repeat(3990));
    await page.getByText('10 characters left').waitFor();
    await page.getByRole('button', { name: 'Send' }).click();
    await list(page).locator('[data-state="sent"]').waitFor();
  });

  test('a search finds old messages and jumps to them', async () => {
    const { alice, bob, names } = await pair();
    const room = await world.direct(alice, bob);
    await world.server.db.query(
      `INSERT INTO messages (id, room_id, sender_id, seq, content, message_type, created_at)
       SELECT gen_random_uuid(), $1, $2, n, 'filler ' || n, 'text', now() - interval '1 day' + n * interval '1 second' FROM generate_series(1, 400) n`,
      [room.id, bob.id],
    );
    await world.server.db.query(`UPDATE messages SET content = 'the needle' WHERE room_id = $1 AND seq = 120`, [room.id]);
    await world.server.db.query('UPDATE rooms SET last_seq = 400 WHERE id = $1', [room.id]);
    const page = await browsers.openAs(world, alice);
    await page.getByRole('searchbox').fill('needle');
    await page.getByRole('region', { name: 'Messages' }).getByRole('button').filter({ hasText: 'needle' }).click();
    await message(page, 'the needle').waitFor();
    await until(() => message(page, 'the needle').evaluate((row) => {
      const box = row.getBoundingClientRect();
      return box.top > 50 && box.bottom < innerHeight - 50;
    }), { what: 'the hit to be in view' });
    await page.getByRole('button', { name: /Jump to latest/ }).click();
    await message(page, 'filler 400').waitFor();
    assert.ok(names.length);
  });
});

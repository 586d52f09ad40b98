// A room with 10,000 messages.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { list, message, until, useBrowser, useServer } from './support.mjs';

const COUNT = 10_000;

describe('a long history', () => {
  const world = useServer();
  const browsers = useBrowser();

  async function longRoom() {
    const [alice, bob] = await Promise.all([world.person({ displayName: 'Alice' }), world.person({ displayName: 'Bob' })]);
    const room = await world.direct(alice, bob);
    await world.server.db.query(
      `INSERT INTO messages (id, room_id, sender_id, seq, content, message_type, created_at)
       SELECT gen_random_uuid(), $1, CASE WHEN n % 3 = 0 THEN $2::bigint ELSE $3::bigint END, n,
              'Message ' || n || '. ' || repeat('words of all lengths ', n % 11), 'text', now() - interval '20 days' + n * interval '150 seconds'
       FROM generate_series(1, ${COUNT}) n`,
      [room.id, alice.id, bob.id],
    );
    await world.server.db.query('UPDATE rooms SET last_seq = $2 WHERE id = $1', [room.id, COUNT]);
    await world.server.db.query('UPDATE room_members SET last_read_seq = $2 WHERE room_id = $1', [room.id, COUNT]);
    return { alice, room };
  }

  test('is scrolled to its beginning without a jump, with few elements on the page', async () => {
    const { alice, room } = await longRoom();
    const page = await browsers.openAs(world, alice, { path: `/rooms/${room.id}` });
    await message(page, `Message ${COUNT}.`).waitFor();
    const first = () => list(page).evaluate((box) => Number(box.dataset.firstSeq));
    let before = await first();

    // The first pages, watched closely: what is in view stays where it is when older ones come in above it.
    for (let i = 0; i < 5; i += 1) {
      const moved = await list(page).evaluate(async (box) => {
        const frame = () => new Promise((done) => requestAnimationFrame(done));
        box.scrollTop = 900;
        // New rows take their measured heights first.
        for (let i = 0; i < 6; i += 1) await frame();
        const edge = box.getBoundingClientRect().top;
        const held = [...box.querySelectorAll('[data-seq]')].find((row) => row.getBoundingClientRect().top >= edge + 40);
        const { seq } = held.dataset;
        const from = Number(box.dataset.firstSeq);
        box.scrollTop -= 300;
        await frame();
        let [place, worst] = [held.getBoundingClientRect().top, 0];
        for (let frames = 0; frames < 600; frames += 1) {
          await frame();
          const row = box.querySelector(`[data-seq="${seq}"]`);
          if (!row) return { lost: seq };
          const now = row.getBoundingClientRect().top;
          worst = Math.max(worst, Math.abs(now - place));
          place = now;
          if (Number(box.dataset.firstSeq) < from && frames > 10) break;
        }
        return { worst };
      });
      assert.ok(moved.worst !== undefined && moved.worst <= 2, `page ${i}: ${JSON.stringify(moved)}`);
      await until(async () => await first() < before, { ms: 15_000, what: 'an older page' });
      before = await first();
    }

    await until(async () => {
      await list(page).evaluate((box) => { box.scrollTop = 0; });
      return await page.getByText('The beginning of your conversation with Bob.').count() === 1;
    }, { ms: 200_000, every: 10, what: 'the beginning' });
    await message(page, 'Message 1.').first().waitFor();
    const rows = await list(page).locator('[data-index]').count();
    assert.ok(rows < 80, `${rows} rows are on the page`);

    await page.getByRole('button', { name: /Jump to latest/ }).click();
    await message(page, `Message ${COUNT}.`).waitFor();
    await until(() => list(page).evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight < 4), { what: 'the end' });
  });
});

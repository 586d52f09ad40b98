// History, its pages, and search.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { answered, checkMessage, refused } from '../support/expect.mjs';
import { history, sendMany, useServer } from '../support/fixture.mjs';

describe('history', () => {
  const world = useServer();
  const seqs = ({ messages }) => messages.map(({ seq }) => seq);
  const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
  let author;
  let reader;
  let room;

  before(async () => {
    [author, reader] = await world.people(2);
    room = await world.group(author, reader);
    await sendMany(await world.connect(author), room.id, 120);
  });

  test('without a cursor the newest page of 50 comes, ascending', async () => {
    const page = await history(reader, room.id, '');
    assert.deepEqual(seqs(page), range(71, 120));
    assert.notEqual(page.nextBefore, null);
    assert.equal(page.nextAfter, null);
    page.messages.forEach((message) => checkMessage(message, reader.id));
    (await history(author, room.id, '')).messages.forEach((message) => checkMessage(message, author.id));
  });

  test('nextBefore leads back to the oldest message, and is null exactly there', async () => {
    let page = await history(reader, room.id, 'limit=50');
    const pages = [seqs(page)];
    while (page.nextBefore !== null) {
      page = await history(reader, room.id, `limit=50&before=${page.nextBefore}`);
      pages.push(seqs(page));
    }
    assert.deepEqual(pages, [range(71, 120), range(21, 70), range(1, 20)]);
    assert.equal((await history(reader, room.id, 'before=51&limit=50')).nextBefore, null, 'a full page that holds the oldest');
  });

  test('nextAfter leads on to the newest message, and is null exactly there', async () => {
    const pages = [];
    let next = 0;
    while (next !== null) {
      const page = await history(reader, room.id, `limit=50&after=${next}`);
      pages.push(seqs(page));
      next = page.nextAfter;
    }
    assert.deepEqual(pages, [range(1, 50), range(51, 100), range(101, 120)]);
    assert.equal((await history(reader, room.id, 'after=70&limit=50')).nextAfter, null, 'a full page that holds the newest');
  });

  test('before and after exclude their seq, at the ends too', async () => {
    assert.deepEqual(seqs(await history(reader, room.id, 'before=10&limit=3')), [7, 8, 9]);
    assert.deepEqual(seqs(await history(reader, room.id, 'after=10&limit=3')), [11, 12, 13]);
    assert.deepEqual(seqs(await history(reader, room.id, 'before=1')), []);
    assert.deepEqual(seqs(await history(reader, room.id, 'after=120')), []);
    assert.deepEqual(seqs(await history(reader, room.id, 'before=1000000&limit=1')), [120]);
    assert.deepEqual(seqs(await history(reader, room.id, 'limit=100')), range(21, 120));
  });

  test('a bad limit, a negative cursor and two cursors are refused', async () => {
    for (const query of ['limit=0', 'limit=101', 'limit=-1', 'limit=many', 'limit=1.5', 'before=-1', 'after=-1', 'before=x',
      'after=1.5', 'before=5&after=2', 'before=99999999999999999999']) {
      refused(await reader.api.get(`/rooms/${room.id}/messages?${query}`), 400, 'validation_failed');
    }
  });

  test('an empty room has an empty page with no way on', async () => {
    const empty = await world.group(author);
    assert.deepEqual(await history(author, empty.id, ''), { messages: [], nextBefore: null, nextAfter: null });
  });
});

describe('search', () => {
  const world = useServer();
  let author;
  let reader;
  let room;
  let client;
  const search = async (user, query) => answered(await user.api.get(`/messages/search?${new URLSearchParams(query)}`));
  const contents = ({ messages }) => messages.map(({ content }) => content);

  before(async () => {
    [author, reader] = await world.people(2);
    room = await world.group(author, reader);
  });

  async function say(user, roomId, ...lines) {
    client = await world.connect(user);
    const messages = [];
    for (const line of lines) messages.push(await client.send(roomId, line));
    return messages;
  }

  test('it ignores case, needs all words, and answers the newest first', async () => {
    await say(author, room.id, 'The Parrot sleeps', 'A parrot sings loudly', 'Loudly sings a PARROT', 'No bird at all');
    assert.deepEqual(contents(await search(reader, { q: 'parrot' })), ['Loudly sings a PARROT', 'A parrot sings loudly', 'The Parrot sleeps']);
    assert.deepEqual(contents(await search(reader, { q: 'PARROT loudly' })), ['Loudly sings a PARROT', 'A parrot sings loudly']);
    assert.deepEqual(contents(await search(reader, { q: 'parrot unheard' })), []);
    for (const user of [author, reader]) {
      (await search(user, { q: 'parrot' })).messages.forEach((message) => checkMessage(message, user.id));
    }
  });

  test('it looks only into rooms that the caller is in, and into one room when asked', async () => {
    const elsewhere = await world.group(author);
    await say(author, elsewhere.id, 'a walrus here');
    await say(author, room.id, 'a walrus there');
    assert.deepEqual(contents(await search(author, { q: 'walrus' })), ['a walrus there', 'a walrus here']);
    assert.deepEqual(contents(await search(author, { q: 'walrus', roomId: elsewhere.id })), ['a walrus here']);
    assert.deepEqual(contents(await search(reader, { q: 'walrus' })), ['a walrus there']);
    refused(await reader.api.get(`/messages/search?q=walrus&roomId=${elsewhere.id}`), 404, 'not_found');
  });

  test('nextBefore leads through everything once', async () => {
    const other = await world.group(author);
    await sendMany(await world.connect(author), other.id, 130, 'heron number');
    const seen = [];
    let query = { q: 'heron' };
    let pages = 0;
    while (query) {
      const page = await search(author, query);
      seen.push(...page.messages.map(({ seq }) => seq));
      query = page.nextBefore === null ? null : { q: 'heron', before: page.nextBefore };
      pages += 1;
    }
    assert.ok(pages > 1, 'there is more than one page');
    assert.deepEqual(seen, Array.from({ length: 130 }, (_, i) => 130 - i));
  });

  test('it finds an edited message by its new words only, and a deleted one not at all', async () => {
    const [edited, deleted] = await say(author, room.id, 'an ostrich runs', 'an ostrich hides');
    await client.ask('message:edit', { messageId: edited.id, content: 'an emu runs' });
    await client.ask('message:delete', { messageId: deleted.id });
    assert.deepEqual(contents(await search(reader, { q: 'ostrich' })), []);
    assert.deepEqual(contents(await search(reader, { q: 'emu' })), ['an emu runs']);
  });

  test('a query has 1 to 200 characters, and signs in it do no harm', async () => {
    for (const query of ['', 'q=', `q=${'x'.repeat(201)}`, 'q=a&roomId=x', 'q=a&before=rubbish', 'q=a%00b']) {
      refused(await reader.api.get(`/messages/search?${query}`), 400, 'validation_failed');
    }
    for (const q of ["'; DROP TABLE messages; --", '& | ! ( ) : * <->', '"unclosed', '%', '🦜'.repeat(200), '\\']) {
      assert.ok(Array.isArray((await search(reader, { q })).messages), q);
    }
  });
});

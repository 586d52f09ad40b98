import { beforeEach, describe, expect, test, vi } from 'vitest';
import { ApiError } from '@/lib/http';
import type { Lock } from '@/lib/locks';
import type { Message, MessageSend } from '@/protocol';
import { message } from '@/testing/fixtures';
import { Outbox, type OutboxStore } from './outbox';
import { outboxDb } from './outbox-db';

const ME = 1;
const lost = () => new ApiError(0, { code: 'network', message: 'away' });
const refused = (code: 'validation_failed' | 'rate_limited', retryAfterMs?: number) =>
  new ApiError(400, { code, message: 'no', ...(retryAfterMs ? { retryAfterMs } : {}) });

/** As between tabs: who comes second waits. */
function locks(): Lock {
  let turn: Promise<unknown> = Promise.resolve();
  return (_, action) => {
    const mine = turn.then(action, action);
    turn = mine.catch(() => undefined);
    return mine;
  };
}

function tab(send: (message: MessageSend) => Promise<Message>, store: OutboxStore = outboxDb, lock = locks()) {
  const stored: Message[] = [];
  const waits: number[] = [];
  const announce = vi.fn();
  const outbox = new Outbox({
    userId: ME, store, lock, send, announce, stored: (one) => stored.push(one),
    wait: (ms) => { waits.push(ms); return Promise.resolve(); },
  });
  return { outbox, stored, waits, announce };
}

let sent: MessageSend[] = [];
const taken = (one: MessageSend): Promise<Message> => {
  sent.push(one);
  return Promise.resolve(message(sent.length, { senderId: ME, content: one.content, clientId: one.clientId ?? null }));
};
const text = (content: string, roomId = 1) => ({ clientId: `id of ${content}`, roomId, content, replyTo: null, metadata: {} });

beforeEach(async () => {
  sent = [];
  await outboxDb.clear(ME);
});

describe('the outbox', () => {
  test('shows a message at once and lets go of it when it is stored', async () => {
    const { outbox, stored } = tab(taken);
    const done = outbox.add(text('hello'));
    expect(outbox.of(1)).toMatchObject([{ content: 'hello', state: 'sending' }]);
    await done;
    expect(outbox.of(1)).toEqual([]);
    expect(stored.map(({ content }) => content)).toEqual(['hello']);
    expect(await outboxDb.list(ME)).toEqual([]);
  });

  test('keeps what could not be sent, over a reload, and sends it in order with the same ids', async () => {
    const first = tab(() => Promise.reject(lost()));
    for (const content of ['one', 'two', 'three']) await first.outbox.add(text(content));
    expect(first.outbox.of(1).map(({ state }) => state)).toEqual(['sending', 'sending', 'sending']);

    const second = tab(taken);
    await second.outbox.load();
    expect(second.outbox.of(1)).toHaveLength(3);
    await second.outbox.resume();
    expect(sent.map(({ clientId }) => clientId)).toEqual(['id of one', 'id of two', 'id of three']);
    expect(second.outbox.of(1)).toEqual([]);
  });

  test('a refusal stops only the message that was refused', async () => {
    const { outbox } = tab((one) => (one.content === 'bad' ? Promise.reject(refused('validation_failed')) : taken(one)));
    await Promise.all([outbox.add(text('bad')), outbox.add(text('good'))]);
    await vi.waitFor(() => expect(sent.map(({ content }) => content)).toEqual(['good']));
    expect(outbox.of(1)).toMatchObject([{ content: 'bad', state: 'failed', reason: 'no' }]);
    await outbox.discard('id of bad');
    expect(outbox.of(1)).toEqual([]);
    expect(await outboxDb.list(ME)).toEqual([]);
  });

  test('a failed one can be tried again', async () => {
    let good = false;
    const { outbox } = tab((one) => (good ? taken(one) : Promise.reject(refused('validation_failed'))));
    await outbox.add(text('again'));
    expect(outbox.of(1)).toMatchObject([{ state: 'failed' }]);
    good = true;
    await outbox.retry('id of again');
    expect(sent).toHaveLength(1);
    expect(outbox.of(1)).toEqual([]);
  });

  test('waits as long as the server says when it sends too fast, and gives up in the end', async () => {
    let refusals = 2;
    const { outbox, waits } = tab((one) => {
      refusals -= 1;
      return refusals >= 0 ? Promise.reject(refused('rate_limited', 300)) : taken(one);
    });
    await outbox.add(text('fast'));
    expect(waits).toEqual([300, 300]);
    expect(sent).toHaveLength(1);
    refusals = 1000;
    await outbox.add(text('too fast'));
    expect(outbox.of(1)).toMatchObject([{ content: 'too fast', state: 'failed' }]);
  });

  test('two tabs resend what is left once, whoever comes first', async () => {
    await tab(() => Promise.reject(lost())).outbox.add(text('left'));
    const lock = locks();
    const [one, two] = [tab(taken, outboxDb, lock), tab(taken, outboxDb, lock)];
    await Promise.all([one.outbox.resume(), two.outbox.resume()]);
    expect(sent).toHaveLength(1);
  });

  test('a broadcast that overtakes the acknowledgement settles it too', async () => {
    let release = (_: Message) => {};
    const { outbox } = tab(() => new Promise((done) => { release = done; }));
    void outbox.add(text('quick'));
    await vi.waitFor(() => expect(outbox.of(1)).toHaveLength(1));
    outbox.confirm(message(1, { senderId: ME, clientId: 'id of quick' }));
    expect(outbox.of(1)).toEqual([]);
    release(message(1, { senderId: ME, clientId: 'id of quick' }));
  });

  test('sends without a store, and forgets nothing that is on screen', async () => {
    const broken = () => Promise.reject(new Error('no IndexedDB'));
    const { outbox } = tab(taken, { list: broken, put: broken, remove: broken, clear: broken });
    await outbox.add(text('still'));
    expect(sent).toHaveLength(1);
    expect(outbox.of(1)).toEqual([]);
  });

  test('holds only its own user, and is emptied when the session ends', async () => {
    const { outbox } = tab(() => Promise.reject(lost()));
    await outbox.add(text('mine'));
    await outboxDb.put({ ...text('theirs'), userId: 2, createdAt: '', order: 1, state: 'sending', reason: null });
    await outbox.load();
    expect(outbox.of(1).map(({ content }) => content)).toEqual(['mine']);
    await outbox.clear();
    expect(await outboxDb.list(ME)).toEqual([]);
    expect(await outboxDb.list(2)).toHaveLength(1);
    await outboxDb.clear(2);
  });
});

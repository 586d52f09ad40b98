import { describe, expect, test, vi } from 'vitest';
import type { Message } from '@/protocol';
import { message, messages } from '@/testing/fixtures';
import { Conversation, type Source, WINDOW } from './conversation';

/** A server with so many messages. */
function server(count: number) {
  const all = messages(1, count);
  const source = {
    history: vi.fn<Source['history']>(({ before, after, limit = 50 }) => {
      const page = after !== undefined ? all.filter(({ seq }) => seq > after).slice(0, limit)
        : all.filter(({ seq }) => seq < (before ?? Infinity)).slice(-limit);
      const [first, last] = [page[0]?.seq ?? 0, page.at(-1)?.seq ?? 0];
      return Promise.resolve({ messages: page, nextBefore: first > 1 ? first : null, nextAfter: last < all.length ? last : null });
    }),
    sync: vi.fn<Source['sync']>((afterSeq) => {
      const rest = all.filter(({ seq }) => seq > afterSeq);
      return Promise.resolve({ roomId: 1, messages: rest.slice(0, 100), lastSeq: all.length, more: rest.length > 100 });
    }),
  };
  return { all, source, add: (...more: Message[]) => all.push(...more) };
}

const seqs = (conversation: Conversation) => conversation.get().messages.map(({ seq }) => seq);
const gapless = (list: number[]) => list.every((seq, index) => index === 0 || seq === (list[index - 1] ?? 0) + 1);

describe('a conversation', () => {
  test('opens with the newest page and goes back page by page to the first', async () => {
    const conversation = new Conversation(1, server(120).source);
    await conversation.open();
    expect(seqs(conversation)).toEqual(messages(71, 120).map(({ seq }) => seq));
    expect(conversation.get()).toMatchObject({ status: 'ready', hasOlder: true, hasNewer: false });
    await conversation.loadOlder();
    await conversation.loadOlder();
    expect(conversation.first).toBe(1);
    expect(conversation.get().hasOlder).toBe(false);
    expect(gapless(seqs(conversation))).toBe(true);
  });

  test('asks for a page once, however often it is told to', async () => {
    const { source } = server(120);
    const conversation = new Conversation(1, source);
    await conversation.open();
    await Promise.all([conversation.loadOlder(), conversation.loadOlder(), conversation.loadOlder()]);
    expect(source.history).toHaveBeenCalledTimes(2);
  });

  test('never holds more than a window, and finds back to the end', async () => {
    const conversation = new Conversation(1, server(2000).source);
    await conversation.open();
    for (let i = 0; i < 20; i += 1) await conversation.loadOlder();
    expect(conversation.get().messages.length).toBe(WINDOW);
    expect(conversation.get().hasNewer).toBe(true);
    while (conversation.get().hasNewer) await conversation.loadNewer();
    expect(conversation.last).toBe(2000);
    expect(gapless(seqs(conversation))).toBe(true);
  });

  test('adds what follows, and asks for what is missing in between', async () => {
    const { source, add } = server(10);
    const conversation = new Conversation(1, source);
    await conversation.open();
    add(...messages(11, 13));
    conversation.receive(message(11));
    expect(conversation.last).toBe(11);
    conversation.receive(message(13));
    expect(conversation.last).toBe(11);
    await vi.waitFor(() => expect(conversation.last).toBe(13));
    expect(source.sync).toHaveBeenCalledWith(11);
    expect(gapless(seqs(conversation))).toBe(true);
  });

  test('hears of a message twice and shows it once', async () => {
    const conversation = new Conversation(1, server(3).source);
    await conversation.open();
    conversation.receive(message(3));
    conversation.receive(message(4));
    conversation.receive(message(4));
    expect(seqs(conversation)).toEqual([1, 2, 3, 4]);
  });

  test('walks on while there is more to sync, and begins anew when it missed too much', async () => {
    const { source, add } = server(10);
    const conversation = new Conversation(1, source);
    await conversation.open();
    add(...messages(11, 260));
    conversation.heard(260);
    await vi.waitFor(() => expect(conversation.last).toBe(260));
    expect(source.sync).toHaveBeenCalledTimes(3);
    add(...messages(261, 900));
    conversation.heard(900);
    await vi.waitFor(() => expect(conversation.last).toBe(900));
    expect(conversation.first).toBe(851);
  });

  test('jumps to an old message, waits there while new ones come, and returns', async () => {
    const { source, add } = server(1000);
    const conversation = new Conversation(1, source);
    await conversation.open();
    await conversation.jumpTo(300);
    expect(seqs(conversation)).toContain(300);
    expect(conversation.get()).toMatchObject({ hasOlder: true, hasNewer: true });
    add(message(1001));
    conversation.receive(message(1001));
    expect(conversation.last).toBe(350);
    expect(conversation.get().lastSeq).toBe(1001);
    await conversation.latest();
    expect(conversation.last).toBe(1001);
  });

  test('after a lost connection it looks at recent messages again: they may have changed', async () => {
    const { source, all } = server(20);
    const conversation = new Conversation(1, source);
    await conversation.open();
    all[4] = message(5, { content: 'edited', editedAt: '2026-11-24T09:00:00.000Z' });
    await conversation.refresh();
    expect(conversation.find('m5')?.content).toBe('edited');
  });

  test('a refresh is not swallowed by a sync that began later in the room', async () => {
    const { source, all, add } = server(20);
    const conversation = new Conversation(1, source);
    await conversation.open();
    all[4] = message(5, { content: 'edited' });
    add(message(21));
    conversation.heard(21);
    await conversation.refresh();
    expect(conversation.find('m5')?.content).toBe('edited');
    expect(conversation.last).toBe(21);
  });

  test('drops an answer that a jump has overtaken', async () => {
    const { source } = server(1000);
    const conversation = new Conversation(1, source);
    const opening = conversation.open();
    await conversation.jumpTo(100);
    await opening;
    expect(seqs(conversation)).toContain(100);
  });

  test('says that it failed, and can be tried again', async () => {
    const { source } = server(5);
    source.history.mockRejectedValueOnce(new Error('away'));
    const conversation = new Conversation(1, source);
    await conversation.open();
    expect(conversation.get().status).toBe('error');
    await conversation.open();
    expect(conversation.get().status).toBe('ready');
  });

  test('keeps the counts of receipts when a broadcast omits them, and they only grow', async () => {
    const { source, all } = server(3);
    all[2] = message(3, { senderId: 1, receipts: { recipients: 2, delivered: 1, read: 0 } });
    const conversation = new Conversation(1, source);
    await conversation.open();
    conversation.applyStatus({ roomId: 1, messageIds: ['m3'], userId: 7, status: 'read', at: '' });
    conversation.applyStatus({ roomId: 1, messageIds: ['m3'], userId: 7, status: 'read', at: '' });
    expect(conversation.find('m3')?.receipts).toEqual({ recipients: 2, delivered: 1, read: 1 });
    conversation.applyStatus({ roomId: 1, messageIds: ['m3'], userId: 8, status: 'read', at: '' });
    conversation.update(message(3, { senderId: 1, content: 'edited' }));
    expect(conversation.find('m3')).toMatchObject({ content: 'edited', receipts: { recipients: 2, delivered: 2, read: 2 } });
  });

  test('an empty room takes its first message', async () => {
    const { source } = server(0);
    const conversation = new Conversation(1, source);
    await conversation.open();
    expect(conversation.get()).toMatchObject({ status: 'ready', hasOlder: false });
    conversation.receive(message(1));
    expect(seqs(conversation)).toEqual([1]);
  });
});

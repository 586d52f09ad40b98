import { describe, expect, test } from 'vitest';
import { message, messages } from '@/testing/fixtures';
import type { ConversationState } from '@/realtime/conversation';
import type { Pending } from '@/realtime/outbox';
import { rowsOf } from './rows';

const ME = 1;
const state = (more: Partial<ConversationState>): ConversationState => ({
  status: 'ready', messages: [], hasOlder: false, hasNewer: false, loadingOlder: false, loadingNewer: false, lastSeq: 0, dividerAfter: null, ...more,
});
const pending = (clientId: string): Pending => ({
  clientId, userId: ME, roomId: 1, content: clientId, replyTo: null, metadata: {}, createdAt: '2026-11-24T08:01:00.000Z', order: 1, state: 'sending', reason: null,
});
const kinds = (...of: Parameters<typeof rowsOf>) => rowsOf(...of).map(({ kind }) => kind);

describe('the rows of a conversation', () => {
  test('begin with its start and a day, and stand together by sender', () => {
    const rows = rowsOf(state({ messages: [message(1), message(2), message(3, { senderId: ME })] }), [], ME);
    expect(rows.map(({ kind }) => kind)).toEqual(['start', 'day', 'message', 'message', 'message']);
    expect(rows.flatMap((row) => (row.kind === 'message' ? [row.head] : []))).toEqual([true, false, true]);
  });

  test('are cut by days and by pauses', () => {
    const rows = rowsOf(state({ messages: [
      message(1), message(2, { createdAt: '2026-11-24T08:20:00.000Z' }), message(3, { createdAt: '2026-11-26T08:00:00.000Z' }),
    ] }), [], ME);
    expect(rows.map(({ kind }) => kind)).toEqual(['start', 'day', 'message', 'message', 'day', 'message']);
    expect(rows.flatMap((row) => (row.kind === 'message' ? [row.head] : []))).toEqual([true, true, true]);
  });

  test('do not change when older messages come in above them', () => {
    const before = rowsOf(state({ messages: messages(51, 60), hasOlder: true }), [], ME);
    const after = rowsOf(state({ messages: messages(1, 60) }), [], ME);
    expect(before.length).toBe(9);
    expect(after.slice(-before.length)).toEqual(before);
  });

  test('show the divider before the first unread message of somebody else', () => {
    const list = [message(1), message(2, { senderId: ME }), message(3), message(4)];
    expect(kinds(state({ messages: list, dividerAfter: 1 }), [], ME)).toEqual(['start', 'day', 'message', 'message', 'divider', 'message', 'message']);
    expect(kinds(state({ messages: list, dividerAfter: 4 }), [], ME)).not.toContain('divider');
  });

  test('end with what is not stored yet, each once and under the key that it keeps', () => {
    const rows = rowsOf(state({ messages: [message(1, { senderId: ME, clientId: 'a' })] }), [pending('a'), pending('b')], ME);
    expect(rows.map(({ key }) => key).slice(2)).toEqual(['c-a', 'c-b']);
  });

  test('leave out what is unsent while they show an older part', () => {
    expect(kinds(state({ messages: messages(1, 2), hasNewer: true }), [pending('b')], ME)).not.toContain('pending');
  });
});

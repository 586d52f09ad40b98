/** What the list shows, one row after the other. Plain data, so that it can be tested. */
import { dayKey } from '@/lib/dates';
import type { Message } from '@/protocol';
import type { ConversationState } from '@/realtime/conversation';
import type { Pending } from '@/realtime/outbox';

export type Row =
  | { kind: 'start'; key: 'start' }
  | { kind: 'day'; key: string; iso: string }
  | { kind: 'divider'; key: 'divider' }
  | { kind: 'message'; key: string; message: Message; head: boolean }
  | { kind: 'pending'; key: string; pending: Pending; head: boolean };

/** Messages of one sender within this time stand together. */
const TOGETHER_MS = 5 * 60_000;

/** One's own keep their row when they turn from pending to stored. */
const keyOf = (message: Message, me: number): string =>
  (message.senderId === me && message.clientId ? `c-${message.clientId}` : message.id);

/**
 * While there are older messages, the oldest that is held is not shown: whether it begins a day or a group is
 * known only with the one before it. So no row ever changes when older ones come in above it.
 */
export function rowsOf(state: ConversationState, pending: readonly Pending[], me: number): Row[] {
  const rows: Row[] = [];
  if (state.status === 'idle' || (state.status === 'loading' && state.messages.length === 0)) return rows;
  if (!state.hasOlder) rows.push({ kind: 'start', key: 'start' });
  let day = '';
  let sender = 0;
  let time = 0;
  const headOf = (senderId: number, iso: string): boolean => {
    const at = Date.parse(iso);
    if (dayKey(iso) !== day) {
      day = dayKey(iso);
      rows.push({ kind: 'day', key: `day-${day}`, iso });
      sender = 0;
    }
    const head = senderId !== sender || at - time > TOGETHER_MS;
    sender = senderId;
    time = at;
    return head;
  };
  const stored = new Set<string>();
  let divided = false;
  const [hidden] = state.messages;
  if (state.hasOlder && hidden) {
    day = dayKey(hidden.createdAt);
    sender = hidden.senderId;
    time = Date.parse(hidden.createdAt);
  }
  for (const message of state.hasOlder ? state.messages.slice(1) : state.messages) {
    if (message.clientId && message.senderId === me) stored.add(message.clientId);
    const unseen = state.dividerAfter !== null && message.seq > state.dividerAfter;
    if (unseen && !divided && message.senderId !== me) {
      divided = true;
      if (dayKey(message.createdAt) !== day) {
        day = dayKey(message.createdAt);
        rows.push({ kind: 'day', key: `day-${day}`, iso: message.createdAt });
      }
      rows.push({ kind: 'divider', key: 'divider' });
      sender = 0;
    }
    const head = headOf(message.senderId, message.createdAt);
    rows.push({ kind: 'message', key: keyOf(message, me), message, head });
  }
  if (state.hasNewer) return rows;
  for (const one of pending) {
    if (stored.has(one.clientId)) continue;
    const head = headOf(me, one.createdAt);
    rows.push({ kind: 'pending', key: `c-${one.clientId}`, pending: one, head });
  }
  return rows;
}

/** A guess at the height, in pixels, until the row is measured. */
export function guessHeight(row: Row | undefined): number {
  switch (row?.kind) {
    case 'message':
    case 'pending': {
      const content = row.kind === 'message' ? row.message.content : row.pending.content;
      const lines = content.split('\n').reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / 62)), 0);
      const reactions = row.kind === 'message' && row.message.reactions.length > 0 ? 30 : 0;
      return 16 + lines * 22 + (row.head ? 14 : 0) + reactions;
    }
    case 'start': return 150;
    case 'day':
    case 'divider': return 44;
    default: return 48;
  }
}

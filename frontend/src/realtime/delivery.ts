/** How far a message of one's own has come. */
import type { Member, Message } from '@/protocol';

export type Delivery = 'sending' | 'failed' | 'sent' | 'delivered' | 'read';

/** Members who were there when it was sent, without its sender. Later ones count as having read everything. */
function recipients(message: Message, members: readonly Member[]): Member[] {
  return members.filter((one) => one.userId !== message.senderId && one.joinedAt <= message.createdAt);
}

/** Counts of the server, or the members' watermarks where these know more by now. */
export function deliveryOf(message: Message, members: readonly Member[] = []): 'sent' | 'delivered' | 'read' {
  const those = recipients(message, members);
  const all = message.receipts?.recipients || those.length;
  if (all === 0) return 'sent';
  const readers = those.filter((one) => one.lastReadSeq >= message.seq).length;
  const holders = those.filter((one) => Math.max(one.lastReadSeq, one.lastDeliveredSeq) >= message.seq).length;
  if (Math.max(message.receipts?.read ?? 0, readers) >= all) return 'read';
  return Math.max(message.receipts?.delivered ?? 0, holders) >= all ? 'delivered' : 'sent';
}

/** Who has read a message, and who has at least received it. */
export function seenBy(message: Message, members: readonly Member[]): { read: Member[]; delivered: Member[]; waiting: Member[] } {
  const groups = { read: [] as Member[], delivered: [] as Member[], waiting: [] as Member[] };
  for (const one of members) {
    if (one.userId === message.senderId) continue;
    if (one.lastReadSeq >= message.seq) groups.read.push(one);
    else if (one.lastDeliveredSeq >= message.seq) groups.delivered.push(one);
    else groups.waiting.push(one);
  }
  return groups;
}

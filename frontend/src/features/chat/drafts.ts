/** Texts that were begun, by user and room. They live as long as the tab. */
import { tab } from '@/lib/storage';

const key = (userId: number, roomId: number) => `starling.draft.${userId}.${roomId}`;

export const draftOf = (userId: number, roomId: number): string => tab.read<string>(key(userId, roomId)) ?? '';

export function keepDraft(userId: number, roomId: number, text: string): void {
  if (text.trim()) tab.write(key(userId, roomId), text);
  else tab.remove(key(userId, roomId));
}

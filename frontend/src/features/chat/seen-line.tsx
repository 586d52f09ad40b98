import { useTranslation } from 'react-i18next';
import type { Message } from '@/protocol';
import { seenBy } from '@/realtime/delivery';
import { useChat } from './context';

/** Under the last of one's own messages in a group. */
export function SeenLine({ message }: { message: Message }) {
  const { t } = useTranslation();
  const { members, showSeen } = useChat();
  const { read, delivered, waiting } = seenBy(message, members);
  if (read.length === 0) return null;
  const all = delivered.length + waiting.length === 0;
  return (
    <button type="button" onClick={() => showSeen(message)} className="mt-0.5 min-h-6 px-1 text-xs text-soft hover:text-ink hover:underline">
      {all ? t('seenByAll') : t('seenBy', { count: read.length })}
    </button>
  );
}

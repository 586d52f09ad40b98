import { useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { usePeople, useRealtime } from '@/features/home/context';
import { api } from '@/lib/api';
import { colourOf } from '@/lib/names';
import type { Message } from '@/protocol';
import { useChat } from './context';

/** The message that another one answers. A message says by id whom it answers, and by `seq` where to find it. */
export function Quote({ id, metadata, mine }: { id: string; metadata: Record<string, unknown>; mine: boolean }) {
  const { t } = useTranslation();
  const { conversation, jump } = useChat();
  const { me } = useRealtime();
  const people = usePeople();
  const held = conversation.find(id);
  const named = Number(metadata['replyToSeq']);
  const seq = held?.seq ?? (Number.isSafeInteger(named) && named > 0 ? named : null);
  const { data } = useQuery({
    queryKey: ['message', conversation.roomId, seq],
    queryFn: () => (seq === null ? null : api.messageAt(conversation.roomId, seq)),
    enabled: !held && seq !== null,
  });
  const original: Message | undefined = held ?? (data?.id === id ? data : undefined);
  const name = original && (original.senderId === me ? t('you') : people.get(original.senderId)?.displayName ?? '');
  return (
    <button
      type="button"
      disabled={!original}
      onClick={() => original && jump(original.seq)}
      className={`mb-1 block w-full rounded-lg border-s-3 border-accent px-2.5 py-1 text-start text-sm hover:brightness-97 ${mine ? 'bg-white/50 dark:bg-black/25' : 'bg-tint/45 dark:bg-white/6'}`}
    >
      <span className={`block truncate font-semibold ${original ? `name-${colourOf(original.senderId)}` : ''}`}>{name ?? t('replyGone')}</span>
      {original && (
        <span className="line-clamp-2 break-words text-soft">{original.deletedAt ? t('messageDeleted') : original.content}</span>
      )}
    </button>
  );
}

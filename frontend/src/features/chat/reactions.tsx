import clsx from 'clsx';
import { useEffect } from 'react';
import { useTranslation } from 'react-i18next';
import { toast } from '@/components/ui/toast';
import { usePeople, useRealtime } from '@/features/home/context';
import type { Message } from '@/protocol';

/** As many names as a tooltip holds. */
const NAMED = 10;

export function Reactions({ message }: { message: Message }) {
  const { t } = useTranslation();
  const realtime = useRealtime();
  const people = usePeople();
  useEffect(() => {
    for (const { userIds } of message.reactions) for (const id of userIds.slice(0, NAMED)) realtime.people.want(id);
  }, [realtime, message.reactions]);
  return (
    <ul className="z-1 -mt-1 mb-0.5 flex flex-wrap gap-1">
      {message.reactions.map(({ emoji, userIds }) => {
        const mine = userIds.includes(realtime.me);
        const names = userIds.slice(0, NAMED)
          .map((id) => (id === realtime.me ? t('you') : people.get(id)?.displayName ?? '…')).join(', ');
        const all = userIds.length > NAMED ? t('andMore', { names, count: userIds.length - NAMED }) : names;
        const label = t('reactionBy', { emoji, number: userIds.length, names: all });
        return (
          <li key={emoji}>
            <button
              type="button"
              aria-pressed={mine}
              aria-label={label}
              title={label}
              onClick={() => { realtime.react(message, emoji).catch((error: Error) => toast(error.message)); }}
              className={clsx(
                'flex min-h-7 animate-rise items-center gap-1 rounded-full border px-2 text-sm transition hover:border-accent',
                mine ? 'border-accent bg-tint' : 'border-line bg-raised',
              )}
            >
              <span aria-hidden>{emoji}</span><span aria-hidden className="text-xs font-medium">{userIds.length}</span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}

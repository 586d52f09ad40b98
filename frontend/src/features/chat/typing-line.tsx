import { useEffect } from 'react';
import { useTranslation } from 'react-i18next';
import { usePeople, useRealtime } from '@/features/home/context';
import { useStore } from '@/lib/use-store';

/** "Alice is typing…": three names at most. */
export function TypingLine({ roomId }: { roomId: number }) {
  const { t } = useTranslation();
  const realtime = useRealtime();
  const typists = useStore(realtime.typing).get(roomId);
  const people = usePeople();
  useEffect(() => {
    for (const id of typists ?? []) realtime.people.want(id);
  }, [realtime, typists]);
  const [a, b, c] = (typists ?? []).map((id) => people.get(id)?.displayName.split(' ')[0] ?? t('deletedUser'));
  const count = typists?.length ?? 0;
  const words = count === 1 ? t('typing1', { a }) : count === 2 ? t('typing2', { a, b }) : count === 3 ? t('typing3', { a, b, c }) : t('typingMany');
  return (
    <p className="flex h-6 shrink-0 items-center gap-2 px-4 text-sm text-soft sm:px-7">
      {count > 0 && (
        <>
          <span aria-hidden className="flex gap-0.5">
            {['', '[animation-delay:150ms]', '[animation-delay:300ms]'].map((delay) => <span key={delay} className={`size-1.5 animate-dot rounded-full bg-soft ${delay}`} />)}
          </span>
          <span className="truncate">{words}</span>
        </>
      )}
    </p>
  );
}

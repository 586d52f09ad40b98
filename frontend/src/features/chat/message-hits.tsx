import { useInfiniteQuery } from '@tanstack/react-query';
import { useEffect } from 'react';
import { useTranslation } from 'react-i18next';
import { Button } from '@/components/ui/button';
import { Failed, Spinner } from '@/components/ui/states';
import { usePeople, useRealtime } from '@/features/home/context';
import { useRooms } from '@/features/rooms/use-room';
import { roomTitle } from '@/features/rooms/titles';
import { api } from '@/lib/api';
import { shortTime } from '@/lib/dates';
import type { Message } from '@/protocol';

/** Messages that hold all of the words, the newest first. */
export function MessageHits({ query, roomId, onChoose }: { query: string; roomId?: number; onChoose(message: Message): void }) {
  const { t, i18n } = useTranslation();
  const realtime = useRealtime();
  const people = usePeople();
  const { data: rooms = [] } = useRooms();
  const words = [...query].slice(0, 200).join('');
  const hits = useInfiniteQuery({
    queryKey: ['search', roomId ?? null, words],
    queryFn: ({ pageParam }) => api.search(words, roomId, pageParam),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.nextBefore,
    staleTime: 5_000,
    gcTime: 60_000,
  });
  const messages = hits.data?.pages.flatMap((page) => page.messages) ?? [];
  useEffect(() => {
    for (const { senderId } of messages) realtime.people.want(senderId);
  });
  if (hits.isPending) return <Spinner />;
  if (hits.isError) return <Failed onRetry={() => void hits.refetch()} />;
  if (messages.length === 0) return <p className="px-3 py-1 text-sm text-soft">{t('nothingFound', { query })}</p>;
  const placeOf = (message: Message): string => {
    const room = rooms.find(({ id }) => id === message.roomId);
    return room ? roomTitle({ ...room, members: [...realtime.members(room.id)] }, realtime.me) : '';
  };
  return (
    <>
      <ul>
        {messages.map((message) => (
          <li key={message.id}>
            <button type="button" onClick={() => onChoose(message)} className="block w-full rounded-2xl px-3 py-2 text-start outline-offset-[-2px] hover:bg-hover">
              <span className="flex items-baseline gap-2 text-sm">
                <span className="min-w-0 flex-1 truncate font-medium">
                  {message.senderId === realtime.me ? t('you') : people.get(message.senderId)?.displayName}
                  {roomId === undefined && <span className="font-normal text-soft"> · {placeOf(message)}</span>}
                </span>
                <time dateTime={message.createdAt} className="shrink-0 text-xs text-soft">{shortTime(i18n.language, message.createdAt, { yesterday: t('yesterday') })}</time>
              </span>
              <span className="line-clamp-2 text-sm break-words text-soft"><Marked text={message.content} query={words} /></span>
            </button>
          </li>
        ))}
      </ul>
      {hits.hasNextPage && (
        <Button kind="ghost" busy={hits.isFetchingNextPage} onClick={() => void hits.fetchNextPage()} className="w-full">{t('loadMore')}</Button>
      )}
    </>
  );
}

function Marked({ text, query }: { text: string; query: string }) {
  const words = query.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  if (words.length === 0) return text;
  return text.split(new RegExp(`(${words.join('|')})`, 'giu')).map((part, index) =>
    (index % 2 === 1 ? <mark key={index} className="rounded bg-tint px-0.5 font-semibold text-ink">{part}</mark> : part));
}

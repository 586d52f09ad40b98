import { useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { useLocation } from 'wouter';
import { Avatar } from '@/components/ui/avatar';
import { Spinner } from '@/components/ui/states';
import { toast } from '@/components/ui/toast';
import { MessageHits } from '@/features/chat/message-hits';
import { useRealtime } from '@/features/home/context';
import { api } from '@/lib/api';
import type { Room, User } from '@/protocol';
import { RoomRow } from './room-row';
import { roomTitle } from './titles';
import { useRooms } from './use-room';
import { useDebounced } from '@/lib/use-debounced';
import { useOpenDirect } from '@/features/people/use-open-direct';

const ROOMS_SHOWN = 6;

/** Conversations, people and messages for some words. */
export function SearchResults({ query, onDone }: { query: string; onDone(): void }) {
  const { t } = useTranslation();
  const realtime = useRealtime();
  const [, navigate] = useLocation();
  const words = useDebounced(query, 200);
  const { data: rooms = [] } = useRooms();
  const people = useQuery({ queryKey: ['people', words], queryFn: () => api.findUsers(words), staleTime: 10_000 });
  const openDirect = useOpenDirect();

  const lower = query.toLocaleLowerCase();
  const titled = (room: Room) => roomTitle({ ...room, members: [...realtime.members(room.id)] }, realtime.me);
  const matching = rooms.filter((room) => titled(room).toLocaleLowerCase().includes(lower)).slice(0, ROOMS_SHOWN);
  const others = (people.data ?? []).filter((user) => user.id !== realtime.me);

  const start = (user: User) => {
    openDirect(user.id).then((id) => { onDone(); navigate(`/rooms/${id}`); }, () => toast(t('somethingWrong')));
  };

  return (
    <div className="grid gap-1">
      {matching.length > 0 && (
        <section aria-label={t('conversations')}>
          <Heading>{t('conversations')}</Heading>
          {matching.map((room) => <div key={room.id} onClick={onDone}><RoomRow room={room} open={false} /></div>)}
        </section>
      )}
      <section aria-label={t('people')}>
        <Heading>{t('people')}</Heading>
        {people.isPending ? <Spinner /> : others.length === 0 && <p className="px-3 py-1 text-sm text-soft">{t('nothingFound', { query })}</p>}
        {others.map((user) => (
          <button key={user.id} type="button" onClick={() => start(user)} className="flex w-full items-center gap-3 rounded-2xl px-3 py-2 text-start outline-offset-[-2px] hover:bg-hover">
            <Avatar id={user.id} name={user.displayName} url={user.avatarUrl} size="sm" />
            <span className="min-w-0">
              <span className="block truncate font-medium">{user.displayName}</span>
              <span className="block truncate text-sm text-soft">@{user.username}</span>
            </span>
          </button>
        ))}
      </section>
      <section aria-label={t('messages')}>
        <Heading>{t('messages')}</Heading>
        <MessageHits query={words} onChoose={(message) => { onDone(); navigate(`/rooms/${message.roomId}?at=${message.seq}`); }} />
      </section>
    </div>
  );
}

function Heading({ children }: { children: string }) {
  return <h2 className="px-3 pt-2 pb-1 text-xs font-semibold tracking-wide text-soft uppercase">{children}</h2>;
}

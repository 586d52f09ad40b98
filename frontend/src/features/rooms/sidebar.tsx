import clsx from 'clsx';
import { MessageCirclePlus, Search, UsersRound, X } from 'lucide-react';
import { lazy, type RefObject, Suspense, useDeferredValue, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { IconButton } from '@/components/ui/button';
import { Empty, Failed, Skeleton } from '@/components/ui/states';
import type { Panel } from '@/features/home/home';
import { SecondWindow } from '@/features/home/welcome';
import { RoomRow } from './room-row';
import { SearchResults } from './search-results';
import { useRooms } from './use-room';

const AccountMenu = lazy(() => import('@/features/home/account-menu').then(({ AccountMenu }) => ({ default: AccountMenu })));

interface Props {
  roomId: number | null;
  hiddenOnPhone: boolean;
  openPanel(panel: Panel): void;
  searchRef: RefObject<HTMLInputElement | null>;
}

export function Sidebar({ roomId, hiddenOnPhone, openPanel, searchRef }: Props) {
  const { t } = useTranslation();
  const [query, setQuery] = useState('');
  const words = useDeferredValue(query.trim());
  const list = useRef<HTMLDivElement>(null);

  const clear = () => {
    setQuery('');
    searchRef.current?.blur();
  };
  /** Arrows walk through what the list shows, from the field and back. */
  const onKey = (event: React.KeyboardEvent) => {
    if (event.altKey || (event.key !== 'ArrowDown' && event.key !== 'ArrowUp')) return;
    const items = [...list.current?.querySelectorAll<HTMLElement>('a, button') ?? []];
    const index = items.indexOf(document.activeElement as HTMLElement);
    const next = index + (event.key === 'ArrowDown' ? 1 : -1);
    event.preventDefault();
    if (next < 0) searchRef.current?.focus();
    else items[next]?.focus();
  };

  return (
    <nav
      aria-label={t('conversations')}
      onKeyDown={onKey}
      className={clsx(
        'min-h-0 w-full flex-col border-e border-line bg-panel md:flex md:w-72 lg:w-88',
        hiddenOnPhone ? 'hidden' : 'flex',
      )}
    >
      <header className="flex items-center gap-1 px-3 pt-3">
        <Suspense fallback={<Skeleton className="m-1 size-8 rounded-full" />}><AccountMenu openPanel={openPanel} /></Suspense>
        <h1 className="min-w-0 flex-1 truncate ps-1 text-lg font-semibold tracking-tight">{t('conversations')}</h1>
        <IconButton label={t('newGroup')} onClick={() => openPanel('group')}><UsersRound /></IconButton>
        <IconButton label={t('newConversation')} onClick={() => searchRef.current?.focus()}><MessageCirclePlus /></IconButton>
      </header>
      <div role="search" className="relative px-3 py-3">
        <Search aria-hidden className="pointer-events-none absolute start-6.5 top-1/2 size-4.5 -translate-y-1/2 text-soft" />
        <input
          ref={searchRef}
          type="search"
          value={query}
          onChange={(event) => setQuery(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === 'Escape') clear();
            if (event.key === 'Enter') list.current?.querySelector<HTMLElement>('a, button')?.click();
          }}
          placeholder={t('searchAll')}
          aria-label={t('searchAll')}
          className="min-h-11 w-full rounded-2xl border border-transparent bg-hover ps-10.5 pe-10 placeholder:text-soft focus:border-accent focus:bg-raised focus:outline-none [&::-webkit-search-cancel-button]:hidden"
        />
        {query && (
          <IconButton label={t('clearSearch')} onClick={() => { clear(); searchRef.current?.focus(); }} className="absolute end-3.5 top-3.5"><X /></IconButton>
        )}
      </div>
      <div ref={list} className="min-h-0 flex-1 overflow-y-auto overscroll-contain px-2 pb-3">
        {words ? <SearchResults query={words} onDone={clear} /> : <RoomList roomId={roomId} />}
      </div>
    </nav>
  );
}

function RoomList({ roomId }: { roomId: number | null }) {
  const { t } = useTranslation();
  const { data: rooms, isError, refetch } = useRooms();
  if (!rooms && isError) return <Failed onRetry={() => void refetch()} />;
  if (!rooms) {
    return (
      <div role="status" aria-label={t('loading')}>
        {[40, 28, 36, 24, 32].map((width) => (
          <div key={width} className="flex items-center gap-3 px-3 py-2.5">
            <Skeleton className="size-11 rounded-full" />
            <div className="flex-1 space-y-2"><Skeleton className="h-3.5 w-32" /><Skeleton className="h-3 w-full" /></div>
          </div>
        ))}
      </div>
    );
  }
  if (rooms.length === 0) {
    return <Empty icon={<MessageCirclePlus />} title={t('noRooms')}>{t('noRoomsHint')}<SecondWindow /></Empty>;
  }
  return (
    <ul className="grid grid-cols-1 gap-0.5">
      {rooms.map((room) => <li key={room.id} className="min-w-0"><RoomRow room={room} open={room.id === roomId} /></li>)}
    </ul>
  );
}

import { ArrowLeft, BellOff, Info, Search } from 'lucide-react';
import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Link } from 'wouter';
import { Avatar } from '@/components/ui/avatar';
import { IconButton } from '@/components/ui/button';
import { Skeleton } from '@/components/ui/states';
import { useHere } from '@/features/home/context';
import type { Face } from '@/features/rooms/use-room';
import { ago } from '@/lib/dates';
import { useStore } from '@/lib/use-store';
import { useChat } from './context';

export function ChatHeader({ face, onDetails, onSearch }: { face: Face; onDetails(): void; onSearch(): void }) {
  const { t } = useTranslation();
  const { room } = useChat();
  const { muted } = useHere();
  const silent = useStore(muted).has(room.id);
  return (
    <header className="flex shrink-0 items-center gap-2 border-b border-line bg-panel px-2 py-2 sm:px-4">
      <Link href="/" aria-label={t('backToList')} className="grid size-10 place-items-center rounded-xl text-soft hover:bg-hover md:hidden">
        <ArrowLeft aria-hidden className="size-5 rtl:-scale-x-100" />
      </Link>
      <h1 className="flex min-w-0 flex-1"><button type="button" onClick={onDetails} title={t('details', { name: face.title })} className="flex min-w-0 flex-1 items-center gap-3 rounded-2xl p-1 text-start hover:bg-hover">
        <Avatar id={face.id} name={face.title} url={face.url} group={room.roomType === 'group'} {...(face.status ? { status: face.status } : {})} />
        <span className="min-w-0">
          <span className="flex items-center gap-1.5">
            <span className="truncate font-semibold">{face.title || <Skeleton className="h-4 w-32" />}</span>
            {silent && <BellOff role="img" aria-label={t('muted')} className="size-3.5 shrink-0 text-soft" />}
          </span>
          <span className="block truncate text-sm text-soft"><Status face={face} /></span>
        </span>
      </button></h1>
      <IconButton label={t('searchRoom', { name: face.title })} onClick={onSearch}><Search /></IconButton>
      <IconButton label={t('detailsShort')} onClick={onDetails}><Info /></IconButton>
    </header>
  );
}

/** "last seen 5 minutes ago" grows older while one looks at it. */
const MINUTE_MS = 60_000;

function Status({ face }: { face: Face }) {
  const { t, i18n } = useTranslation();
  const { room, members } = useChat();
  const { realtime } = useHere();
  const presence = useStore(realtime.presence);
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((count) => count + 1), MINUTE_MS);
    return () => clearInterval(timer);
  }, []);
  if (room.roomType === 'group') {
    const online = members.filter(({ userId }) => userId === realtime.me || presence.get(userId)?.status === 'online').length;
    return `${t('members', { count: members.length })}${online > 1 ? ` · ${t('onlineCount', { count: online })}` : ''}`;
  }
  if (face.status === 'online') return t('online');
  if (face.status === 'away') return t('away');
  return face.lastSeen ? t('lastSeen', { when: ago(i18n.language, face.lastSeen) }) : t('offlineStatus');
}

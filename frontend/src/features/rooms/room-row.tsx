import clsx from 'clsx';
import { BellOff } from 'lucide-react';
import { memo, useEffect } from 'react';
import { useTranslation } from 'react-i18next';
import { Link } from 'wouter';
import { Avatar } from '@/components/ui/avatar';
import { Skeleton } from '@/components/ui/states';
import { DeliveryMark } from '@/features/chat/delivery-mark';
import { draftOf } from '@/features/chat/drafts';
import { useHere, usePeople } from '@/features/home/context';
import { shortTime } from '@/lib/dates';
import { useStore } from '@/lib/use-store';
import type { Room } from '@/protocol';
import { deliveryOf } from '@/realtime/delivery';
import { activityOf } from '@/realtime/room-list';
import { useFace } from './use-room';

export const RoomRow = memo(function RoomRow({ room, open }: { room: Room; open: boolean }) {
  const { t, i18n } = useTranslation();
  const { realtime, muted } = useHere();
  const face = useFace(room);
  const silent = useStore(muted).has(room.id);
  const time = activityOf(room);
  return (
    <Link
      href={`/rooms/${room.id}`}
      aria-current={open ? 'page' : undefined}
      data-room={room.id}
      className={clsx(
        'group flex items-center gap-3 rounded-2xl px-3 py-2.5 transition-colors outline-offset-[-2px]',
        open ? 'bg-tint' : 'hover:bg-hover',
      )}
    >
      <Avatar id={face.id} name={face.title} url={face.url} group={room.roomType === 'group'} {...(face.status ? { status: face.status } : {})} />
      <span className="min-w-0 flex-1">
        <span className="flex items-baseline gap-2">
          <span className={clsx('min-w-0 flex-1 truncate', room.unreadCount > 0 ? 'font-semibold' : 'font-medium')}>
            {face.title || <Skeleton className="my-1 h-3.5 w-28" />}
          </span>
          {silent && <BellOff role="img" aria-label={t('muted')} className="size-3.5 shrink-0 self-center text-soft" />}
          <time dateTime={time} className="shrink-0 text-xs text-soft">
            {shortTime(i18n.language, time, { yesterday: t('yesterday') })}
          </time>
        </span>
        <span className="flex items-center gap-2">
          <span className="min-w-0 flex-1 truncate text-sm text-soft"><Preview room={room} me={realtime.me} open={open} /></span>
          {room.unreadCount > 0 && (
            <span className={clsx('min-w-5 rounded-full px-1.5 text-center text-xs leading-5 font-semibold', silent ? 'bg-line text-ink' : 'bg-accent text-on-accent')}>
              <span aria-hidden>{room.unreadCount > 99 ? '99+' : room.unreadCount}</span>
              <span className="sr-only">{t('unread', { count: room.unreadCount })}</span>
            </span>
          )}
        </span>
      </span>
    </Link>
  );
});

/** Who types, a draft, or the last message. */
function Preview({ room, me, open }: { room: Room; me: number; open: boolean }) {
  const { t } = useTranslation();
  const { realtime } = useHere();
  const typists = useStore(realtime.typing).get(room.id);
  const people = usePeople();
  const waiting = useStore(realtime.outbox).get(room.id)?.at(-1);
  const message = room.lastMessage;
  const senderId = message?.senderId;
  useEffect(() => {
    if (senderId !== undefined && room.roomType === 'group') realtime.people.want(senderId);
  }, [realtime, senderId, room.roomType]);
  if (typists && typists.length > 0) return <span className="text-good">{t('typingShort')}</span>;
  const draft = open ? '' : draftOf(me, room.id);
  if (draft) return <span className="text-accent">{t('draftPrefix', { text: draft })}</span>;
  if (waiting) {
    return (
      <span className="flex items-center gap-1">
        <DeliveryMark state={waiting.state} /><span className="truncate">{waiting.content}</span>
      </span>
    );
  }
  if (!message) return t('noMessages');
  const text = message.deletedAt ? t('messageDeleted') : message.content.replace(/\s+/g, ' ');
  if (message.senderId === me) {
    if (room.roomType === 'direct') {
      return (
        <span className="flex items-center gap-1">
          <DeliveryMark state={deliveryOf(message)} /><span className="truncate">{text}</span>
        </span>
      );
    }
    return t('youPrefix', { text });
  }
  const name = people.get(message.senderId)?.displayName.split(' ')[0];
  return room.roomType === 'group' && name ? t('saidBy', { name, text }) : text;
}

import type { TFunction } from 'i18next';
import { useEffect } from 'react';
import { useRooms } from '@/features/rooms/use-room';
import { notify } from '@/lib/settings';
import { useStore } from '@/lib/use-store';
import type { Message, Room } from '@/protocol';
import { useHere } from './context';

const EXCERPT = 140;

/** What arrives while nobody looks is told by the system, if people asked for that. */
export function announceIncoming({ message, room, sender, muted, t, open }: {
  message: Message; room: Room | undefined; sender: string; muted: ReadonlySet<number>; t: TFunction; open(): void;
}): void {
  if (!notify.get() || muted.has(message.roomId) || document.hasFocus()) return;
  if (typeof Notification === 'undefined' || Notification.permission !== 'granted') return;
  try {
    const title = room?.roomType === 'group' ? `${sender} · ${room.name ?? ''}` : sender;
    // The tag makes one of what several tabs say.
    const shown = new Notification(title || t('appName'), { body: message.content.slice(0, EXCERPT), tag: message.id, icon: '/icon.svg' });
    shown.onclick = () => {
      window.focus();
      open();
      shown.close();
    };
  } catch {
    // Some phones have the name and not the thing.
  }
}

/** How much is unread, before the title of the page. */
export function useTitleBadge(): void {
  const { muted } = useHere();
  const silent = useStore(muted);
  const { data: rooms = [] } = useRooms();
  const unread = rooms.filter(({ id }) => !silent.has(id)).reduce((sum, { unreadCount }) => sum + unreadCount, 0);
  useEffect(() => {
    document.title = unread > 0 ? `(${unread > 99 ? '99+' : unread}) Starling` : 'Starling';
  }, [unread]);
}

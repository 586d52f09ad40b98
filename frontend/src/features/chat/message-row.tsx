import clsx from 'clsx';
import { lazy, memo, Suspense, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Avatar } from '@/components/ui/avatar';
import { usePeople, useRealtime } from '@/features/home/context';
import { clock, full } from '@/lib/dates';
import { colourOf } from '@/lib/names';
import type { Message } from '@/protocol';
import { deliveryOf } from '@/realtime/delivery';
import type { Pending } from '@/realtime/outbox';
import { useChat } from './context';
import { DeliveryMark } from './delivery-mark';
import { MessageText } from './message-text';
import { Quote } from './quote';
import { Reactions } from './reactions';
import { SeenLine } from './seen-line';

// Menus come after the first paint.
const MessageActions = lazy(() => import('./message-actions').then(({ MessageActions }) => ({ default: MessageActions })));

const bubble = (mine: boolean, head: boolean) => clsx(
  'relative min-w-16 rounded-2xl px-3 py-1.5',
  mine ? 'bg-own' : 'bg-other shadow-[0_1px_2px_rgb(0_0_0/.06)]',
  head && (mine ? 'rounded-se-md' : 'rounded-ss-md'),
);

/** Beside the text where there is room, else below it. */
const BODY = 'flex flex-wrap items-end justify-end gap-x-3';
const META = 'flex shrink-0 items-center gap-1 text-xs leading-5 text-soft';

interface RowProps {
  message: Message;
  head: boolean;
  flash: boolean;
  /** The last of one's own: tells in groups who has seen it. */
  last: boolean;
}

export const MessageRow = memo(function MessageRow({ message, head, flash, last }: RowProps) {
  const { t, i18n } = useTranslation();
  const { me } = useRealtime();
  const { room, members } = useChat();
  const people = usePeople();
  const [menu, setMenu] = useState(false);
  const mine = message.senderId === me;
  const group = room.roomType === 'group';
  const person = people.get(message.senderId);
  const name = mine ? t('you') : person?.displayName ?? t('deletedUser');
  const time = clock(i18n.language, message.createdAt);
  const state = mine ? deliveryOf(message, members) : null;
  const text = message.deletedAt ? t('messageDeleted') : message.content;
  return (
    <div
      role="article"
      tabIndex={-1}
      data-seq={message.seq}
      data-row
      aria-label={`${name}, ${time}: ${text}${state ? `, ${t(state)}` : ''}`}
      onContextMenu={(event) => {
        // A selection or a link has a menu of its own.
        if (message.deletedAt || (event.target as Element).closest('a') || getSelection()?.toString()) return;
        event.preventDefault();
        setMenu(true);
      }}
      className={clsx(
        'group/row relative flex gap-2 rounded-2xl px-3 outline-offset-[-2px] sm:px-6',
        head ? 'pt-2.5' : 'pt-0.5', mine && 'flex-row-reverse', flash && 'bg-tint transition-colors duration-700',
      )}
    >
      {group && !mine && (
        <div className="w-8 shrink-0">
          {head && <Avatar id={message.senderId} name={name} url={person?.avatarUrl ?? null} size="sm" />}
        </div>
      )}
      <div className={clsx('flex max-w-[min(85%,42rem)] min-w-0 flex-col', mine ? 'items-end' : 'items-start')}>
        <div className={bubble(mine, head)}>
          {group && head && !mine && <p className={`truncate text-sm font-semibold name-${colourOf(message.senderId)}`}>{name}</p>}
          {message.replyTo && !message.deletedAt && <Quote id={message.replyTo} metadata={message.metadata} mine={mine} />}
          <div className={BODY}>
            {message.deletedAt
              ? <p className="text-soft italic">{t('messageDeleted')}</p>
              : <MessageText text={message.content} />}
            <p className={META}>
              {message.editedAt && !message.deletedAt && <span title={full(i18n.language, message.editedAt)}>{t('edited')}</span>}
              <time dateTime={message.createdAt} title={full(i18n.language, message.createdAt)}>{time}</time>
              {state && !message.deletedAt && <DeliveryMark state={state} />}
            </p>
          </div>
        </div>
        {message.reactions.length > 0 && <Reactions message={message} />}
        {last && group && mine && !message.deletedAt && <SeenLine message={message} />}
      </div>
      {!message.deletedAt && <Suspense fallback={null}><MessageActions message={message} mine={mine} open={menu} onOpenChange={setMenu} /></Suspense>}
    </div>
  );
});

/** A message that the server has not got yet. */
export const PendingRow = memo(function PendingRow({ pending, head }: { pending: Pending; head: boolean }) {
  const { t, i18n } = useTranslation();
  const { outbox } = useRealtime();
  const failed = pending.state === 'failed';
  const time = clock(i18n.language, pending.createdAt);
  return (
    <div
      role="article"
      tabIndex={-1}
      data-row
      aria-label={`${t('you')}, ${time}: ${pending.content}, ${t(pending.state)}`}
      className={clsx('flex flex-row-reverse rounded-2xl px-3 outline-offset-[-2px] sm:px-6', head ? 'pt-2.5' : 'pt-0.5')}
    >
      <div className="flex max-w-[min(85%,42rem)] min-w-0 flex-col items-end">
        <div className={bubble(true, head)}>
          {pending.replyTo && <Quote id={pending.replyTo} metadata={pending.metadata} mine />}
          <div className={BODY}>
            <MessageText text={pending.content} />
            <p className={META}>
              <time dateTime={pending.createdAt}>{time}</time>
              <DeliveryMark state={pending.state} />
            </p>
          </div>
        </div>
        {failed && (
          <p role="alert" className="mt-1 flex flex-wrap items-center justify-end gap-x-2 text-sm text-danger">
            <span>{t('failedBecause', { reason: pending.reason ?? '' })}</span>
            <button type="button" onClick={() => void outbox.retry(pending.clientId)} className="min-h-6 font-semibold underline underline-offset-2">{t('tryAgain')}</button>
            <button type="button" onClick={() => void outbox.discard(pending.clientId)} className="min-h-6 font-semibold underline underline-offset-2">{t('discard')}</button>
          </p>
        )}
      </div>
    </div>
  );
});

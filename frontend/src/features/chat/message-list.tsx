import { useVirtualizer } from '@tanstack/react-virtual';
import clsx from 'clsx';
import { ArrowDown } from 'lucide-react';
import { type Ref, useCallback, useEffect, useImperativeHandle, useLayoutEffect, useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Avatar } from '@/components/ui/avatar';
import { Failed, Skeleton, Spinner } from '@/components/ui/states';
import { usePeople, useRealtime } from '@/features/home/context';
import { SecondWindow } from '@/features/home/welcome';
import { type Face, useRooms } from '@/features/rooms/use-room';
import { dayName } from '@/lib/dates';
import { useStore } from '@/lib/use-store';
import { useChat } from './context';
import { MessageRow, PendingRow } from './message-row';
import { guessHeight, type Row, rowsOf } from './rows';
import { usePageFocus } from './use-page-focus';

/** So near to the end counts as being there, in pixels. */
const END_PX = 80;
/** Rows before an edge at which the next page is asked for. */
const AHEAD = 12;
const FLASH_MS = 1800;
const MORE_PX = 52;
/** As long as a place may take to hold, and as long as it is watched at least. */
const PLACING_FRAMES = 20;
const SETTLED_FRAMES = 4;

/** Where the list has to go as soon as its rows are there. */
type Goal = { to: 'end' } | { to: 'divider' } | { to: 'seq'; seq: number };

export interface ListHandle {
  jump(seq: number): void;
  toEnd(): void;
}

export function MessageList({ face, at, ref }: { face: Face; at: number | null; ref: Ref<ListHandle> }) {
  const { t } = useTranslation();
  const realtime = useRealtime();
  const { room, conversation, title, reply, focusComposer } = useChat();
  const { me } = realtime;
  const state = useStore(conversation);
  const pending = useStore(realtime.outbox).get(room.id);
  const rows = useMemo(() => rowsOf(state, pending ?? [], me), [state, pending, me]);
  const scroller = useRef<HTMLDivElement>(null);
  const [goal, setGoal] = useState<Goal | null>(null);
  const [placing, setPlacing] = useState(false);
  const [flash, setFlash] = useState<number | null>(null);
  const [atEnd, setAtEnd] = useState(true);
  const opened = useRef(false);
  const focused = usePageFocus();

  // What comes in at the end is followed only if it is new, not if it is the next page.
  const wentOn = useRef(false);
  const follows = !state.hasNewer && !wentOn.current;
  useEffect(() => { wentOn.current = state.hasNewer; }, [state.hasNewer]);

  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => guessHeight(rows[index]),
    getItemKey: useCallback((index: number) => rows[index]?.key ?? index, [rows]),
    overscan: 8,
    anchorTo: 'end',
    followOnAppend: follows,
    scrollEndThreshold: END_PX,
    // Places rows in the same frame in which it corrects the scrolling: nothing trembles.
    directDomUpdates: true,
    // Room for the signs that more is being loaded.
    paddingStart: state.hasOlder ? MORE_PX : 0,
    paddingEnd: state.hasNewer ? MORE_PX : 8,
    onChange: (instance) => setAtEnd(instance.isAtEnd(END_PX)),
  });

  // Opening: to the hit of a search, to the first unread message, or to the end.
  const ready = state.status === 'ready';
  useEffect(() => { void conversation.open(); }, [conversation]);
  useEffect(() => {
    if (!ready || opened.current) return;
    opened.current = true;
    const read = realtime.readSeq(room.id);
    const { messages } = conversation.get();
    const unread = messages.some(({ seq, senderId }) => seq > read && senderId !== me);
    conversation.divide(unread ? read : null);
    if (at !== null) void conversation.jumpTo(at).then(() => setGoal({ to: 'seq', seq: at }));
    else if (!unread) setGoal({ to: 'end' });
    else if (read + 1 > (conversation.first ?? 1) || !conversation.get().hasOlder) setGoal({ to: 'divider' });
    else void conversation.jumpTo(read + 1).then(() => setGoal({ to: 'divider' }));
  }, [ready, conversation, realtime, room.id, me, at]);
  // Later hits while the room is open.
  const firstAt = useRef(at);
  useEffect(() => {
    if (at === null || at === firstAt.current) return;
    firstAt.current = at;
    void conversation.jumpTo(at).then(() => setGoal({ to: 'seq', seq: at }));
  }, [at, conversation]);
  useEffect(() => () => conversation.rest(), [conversation]);

  useLayoutEffect(() => {
    if (!goal || !ready || rows.length === 0) return;
    const index = goal.to === 'end' ? -1
      : rows.findIndex((row) => (goal.to === 'divider' ? row.kind === 'divider' : row.kind === 'message' && row.message.seq === goal.seq));
    const go = () => {
      if (index < 0) virtualizer.scrollToEnd();
      else virtualizer.scrollToIndex(index, { align: goal.to === 'divider' ? 'start' : 'center' });
    };
    setGoal(null);
    setPlacing(true);
    go();
    if (goal.to === 'seq' && index >= 0) setFlash(goal.seq);
    // Rows are measured as they come into view, which moves the place: pages are loaded once it holds.
    let frames = 0;
    const settle = () => {
      frames += 1;
      if (index < 0 && frames < PLACING_FRAMES && !virtualizer.isAtEnd(1)) go();
      else if (frames >= SETTLED_FRAMES) return setPlacing(false);
      requestAnimationFrame(settle);
      return undefined;
    };
    requestAnimationFrame(settle);
  }, [goal, ready, rows, virtualizer]);
  useEffect(() => {
    if (flash === null) return undefined;
    const timer = setTimeout(() => setFlash(null), FLASH_MS);
    return () => clearTimeout(timer);
  }, [flash]);

  const jump = useCallback((seq: number) => void conversation.jumpTo(seq).then(() => setGoal({ to: 'seq', seq })), [conversation]);
  const toEnd = useCallback(() => {
    if (conversation.get().hasNewer) void conversation.latest().then(() => setGoal({ to: 'end' }));
    else setGoal({ to: 'end' });
  }, [conversation]);
  useImperativeHandle(ref, () => ({ jump, toEnd }), [jump, toEnd]);

  // Pages at the edges.
  const items = virtualizer.getVirtualItems();
  const [top, bottom] = [items[0]?.index ?? 0, items.at(-1)?.index ?? 0];
  const settled = opened.current && goal === null && !placing;
  useEffect(() => {
    if (!settled || !ready) return;
    if (state.hasOlder && top < AHEAD) void conversation.loadOlder();
    else if (state.hasNewer && bottom > rows.length - AHEAD) void conversation.loadNewer();
  }, [settled, ready, top, bottom, rows.length, state, conversation]);

  // Read is what somebody looks at.
  const last = state.messages.at(-1);
  const seen = ready && settled && focused && atEnd && !state.hasNewer;
  useEffect(() => {
    if (seen && last) realtime.markRead(last);
  }, [seen, last, realtime]);
  // What arrives while nobody looks stands below the divider.
  const wasLast = useRef<number | null>(null);
  useEffect(() => {
    const before = wasLast.current;
    wasLast.current = last?.seq ?? null;
    if (!last || before === null || last.seq !== before + 1 || last.senderId === me || seen) return;
    const { dividerAfter } = conversation.get();
    const read = realtime.readSeq(room.id);
    if (dividerAfter === null || dividerAfter < read) conversation.divide(Math.max(read, before));
  }, [last, seen, me, realtime, conversation, room.id]);

  const lastOwn = useMemo(() => state.messages.findLast(({ senderId }) => senderId === me)?.seq, [state.messages, me]);

  /** Arrows walk through the messages; the list keeps the focus in view. */
  const focusRow = (from: number, by: number) => {
    for (let index = from; index >= 0 && index < rows.length; index += by) {
      const kind = rows[index]?.kind;
      if (kind !== 'message' && kind !== 'pending') continue;
      virtualizer.scrollToIndex(index, { align: 'auto' });
      requestAnimationFrame(() => scroller.current?.querySelector<HTMLElement>(`[data-index="${index}"] [data-row]`)?.focus());
      return;
    }
  };
  const onKeyDown = (event: React.KeyboardEvent<HTMLDivElement>) => {
    const target = event.target as HTMLElement;
    const inRow = target.closest<HTMLElement>('[data-index]');
    if (target !== scroller.current && !target.matches('[data-row]')) {
      if (event.key === 'Escape' && inRow) inRow.querySelector<HTMLElement>('[data-row]')?.focus();
      return;
    }
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const index = inRow ? Number(inRow.dataset['index']) : rows.length;
    if (event.key === 'ArrowUp') focusRow(index - 1, -1);
    else if (event.key === 'ArrowDown' && index + 1 >= rows.length) focusComposer();
    else if (event.key === 'ArrowDown') focusRow(index + 1, 1);
    else if (event.key === 'Home') focusRow(0, 1);
    else if (event.key === 'End') focusRow(rows.length - 1, -1);
    else if (event.key === 'Escape') focusComposer();
    else if (event.key === 'Enter' && inRow) target.dispatchEvent(new MouseEvent('contextmenu', { bubbles: true, cancelable: true }));
    else if (event.key.toLowerCase() === 'r') {
      const row = rows[index];
      if (row?.kind === 'message' && !row.message.deletedAt) reply(row.message);
    } else return;
    event.preventDefault();
  };

  return (
    <div className="relative min-h-0 flex-1">
      <div
        ref={scroller}
        role="log"
        aria-live="off"
        aria-label={t('messageList', { name: title })}
        aria-busy={!ready}
        tabIndex={0}
        onKeyDown={onKeyDown}
        data-first-seq={conversation.first ?? undefined}
        className="h-full overflow-x-hidden overflow-y-auto overscroll-contain outline-offset-[-3px] [overflow-anchor:none]"
      >
        {!ready && rows.length === 0 && state.status !== 'error' && <Loading />}
        {state.status === 'error' && <Failed onRetry={() => void conversation.latest()} />}
        {rows.length > 0 && (
          <div className="flex min-h-full flex-col justify-end">
            <div ref={virtualizer.containerRef} className="relative w-full shrink-0">
              {state.hasOlder && <div className="absolute inset-x-0 top-0 grid h-13 place-items-center"><Spinner /></div>}
              {state.hasNewer && <div className="absolute inset-x-0 bottom-0 grid h-13 place-items-center"><Spinner /></div>}
              {items.map((item) => {
                const row = rows[item.index];
                return row && (
                  <div
                    key={item.key}
                    ref={virtualizer.measureElement}
                    data-index={item.index}
                    className="absolute inset-x-0 top-0"
                  >
                    <RowView row={row} face={face} flash={flash} lastOwn={lastOwn} />
                  </div>
                );
              })}
            </div>
          </div>
        )}
      </div>
      <Below shown={ready && (!atEnd || state.hasNewer)} onClick={toEnd} />
      <Spoken />
    </div>
  );
}

function RowView({ row, face, flash, lastOwn }: { row: Row; face: Face; flash: number | null; lastOwn: number | undefined }) {
  const { t, i18n } = useTranslation();
  switch (row.kind) {
    case 'message':
      return <MessageRow message={row.message} head={row.head} flash={flash === row.message.seq} last={lastOwn === row.message.seq} />;
    case 'pending':
      return <PendingRow pending={row.pending} head={row.head} />;
    case 'day':
      return (
        <p className="flex justify-center pt-4 pb-1">
          <time dateTime={row.iso} className="rounded-full bg-ground px-3 py-0.5 text-xs font-medium text-soft">
            {dayName(i18n.language, row.iso, { today: t('today'), yesterday: t('yesterday') })}
          </time>
        </p>
      );
    case 'divider':
      return (
        <div role="separator" aria-label={t('newMessages')} className="flex items-center gap-3 px-6 pt-3 pb-1 text-xs font-semibold text-accent">
          <span className="h-px flex-1 bg-accent/40" />{t('newMessages')}<span className="h-px flex-1 bg-accent/40" />
        </div>
      );
    default:
      return <Beginning face={face} />;
  }
}

function Beginning({ face }: { face: Face }) {
  const { t } = useTranslation();
  const { room, conversation } = useChat();
  const empty = useStore(conversation).messages.length === 0;
  return (
    <div className="grid justify-items-center gap-3 px-6 pt-10 pb-4 text-center">
      <Avatar id={face.id} name={face.title} url={face.url} group={room.roomType === 'group'} size="lg" />
      <p className="text-soft">{room.roomType === 'group' ? t('startOf', { name: face.title }) : empty ? t('sayHello', { name: face.title }) : t('startWith', { name: face.title })}</p>
      {empty && <SecondWindow />}
    </div>
  );
}

function Loading() {
  return (
    <div aria-hidden className="flex h-full flex-col justify-end gap-3 p-6">
      {['w-52', 'w-72', 'w-40 self-end', 'w-64 self-end', 'w-80', 'w-48'].map((width) => <Skeleton key={width} className={`h-11 rounded-2xl ${width}`} />)}
    </div>
  );
}

function Below({ shown, onClick }: { shown: boolean; onClick(): void }) {
  const { t } = useTranslation();
  const { room } = useChat();
  const { data: rooms } = useRooms();
  const unread = rooms?.find(({ id }) => id === room.id)?.unreadCount ?? 0;
  if (!shown) return null;
  return (
    <button
      type="button"
      onClick={onClick}
      aria-label={unread > 0 ? `${t('jumpToLatest')}, ${t('newBelow', { count: unread })}` : t('jumpToLatest')}
      title={t('jumpToLatest')}
      className={clsx(
        'absolute end-5 bottom-3 flex min-h-11 min-w-11 animate-rise items-center justify-center gap-2 rounded-full border border-line bg-raised px-3 shadow-lg hover:bg-hover',
        unread > 0 && 'font-medium text-accent',
      )}
    >
      {unread > 0 && <span>{t('newBelow', { count: unread })}</span>}
      <ArrowDown aria-hidden className="size-5" />
    </button>
  );
}

/** What others write in the open room is read out. */
function Spoken() {
  const { t } = useTranslation();
  const { conversation } = useChat();
  const { me } = useRealtime();
  const people = usePeople();
  const { messages, status } = useStore(conversation);
  const last = messages.at(-1);
  const known = useRef<number | null>(null);
  const [words, setWords] = useState('');
  useEffect(() => {
    if (status !== 'ready' || !last) return;
    const before = known.current;
    known.current = last.seq;
    if (before === null || last.seq <= before || last.senderId === me || last.deletedAt) return;
    setWords(t('arrived', { name: people.get(last.senderId)?.displayName ?? '', text: last.content }));
  }, [status, last, me, people, t]);
  return <p aria-live="polite" className="sr-only">{words}</p>;
}

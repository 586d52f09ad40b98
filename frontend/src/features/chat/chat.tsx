import { lazy, Suspense, useEffect, useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Link, useSearch } from 'wouter';
import { Empty, Failed } from '@/components/ui/states';
import { toast } from '@/components/ui/toast';
import { useRealtime } from '@/features/home/context';
import { useFace, useRoom, useRooms } from '@/features/rooms/use-room';
import { ApiError } from '@/lib/http';
import type { Message, Room } from '@/protocol';
import { ChatHeader } from './chat-header';
import { type About, Composer, type ComposerHandle } from './composer';
import { ChatContext, type ChatHere } from './context';
import { type ListHandle, MessageList } from './message-list';
import { TypingLine } from './typing-line';

const Confirm = lazy(() => import('@/components/ui/dialog').then(({ Confirm }) => ({ default: Confirm })));
const SeenDialog = lazy(() => import('./seen-dialog').then(({ SeenDialog }) => ({ default: SeenDialog })));
const RoomDetails = lazy(() => import('@/features/people/room-details').then(({ RoomDetails }) => ({ default: RoomDetails })));
const RoomSearch = lazy(() => import('./room-search').then(({ RoomSearch }) => ({ default: RoomSearch })));

/** One conversation. */
export function Chat({ roomId }: { roomId: number }) {
  const { t } = useTranslation();
  const { data: room, error, refetch } = useRoom(roomId);
  const listed = useRooms().data?.find(({ id }) => id === roomId);
  const missing = !Number.isSafeInteger(roomId) || (error instanceof ApiError && (error.status === 404 || error.status === 400));
  if (missing) {
    return (
      <div className="m-auto">
        <Empty title={t('notFound')}><Link href="/" className="text-accent underline underline-offset-4">{t('toConversations')}</Link></Empty>
      </div>
    );
  }
  const shown = room ?? listed;
  if (!shown) return error ? <div className="m-auto"><Failed onRetry={() => void refetch()} /></div> : null;
  return <OpenChat room={shown} complete={room !== undefined} />;
}

type Open = 'details' | 'search' | null;

function OpenChat({ room, complete }: { room: Room; complete: boolean }) {
  const { t } = useTranslation();
  const realtime = useRealtime();
  const face = useFace(room);
  const at = Number(new URLSearchParams(useSearch()).get('at')) || null;
  const conversation = useMemo(() => realtime.conversation(room.id), [realtime, room.id]);
  const list = useRef<ListHandle>(null);
  const composer = useRef<ComposerHandle>(null);
  const [about, setAbout] = useState<About>(null);
  const [deleting, setDeleting] = useState<Message | null>(null);
  const [seen, setSeen] = useState<Message | null>(null);
  const [open, setOpen] = useState<Open>(null);
  const members = room.members ?? NOBODY;

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (!(event.ctrlKey || event.metaKey) || !event.shiftKey || event.key.toLowerCase() !== 'f') return;
      event.preventDefault();
      setOpen('search');
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, []);
  useEffect(() => { realtime.presence.want(members.map(({ userId }) => userId).slice(0, 200)); }, [realtime, members]);

  const chat = useMemo<ChatHere>(() => ({
    room,
    members,
    title: face.title,
    conversation,
    reply: (message) => setAbout({ kind: 'reply', message }),
    edit: (message) => setAbout({ kind: 'edit', message }),
    remove: setDeleting,
    showSeen: setSeen,
    jump: (seq) => list.current?.jump(seq),
    focusComposer: () => composer.current?.focus(),
  }), [room, members, face.title, conversation]);

  return (
    <ChatContext value={chat}>
      <section aria-label={face.title} className="flex min-w-0 flex-1 flex-col">
        <ChatHeader face={face} onDetails={() => setOpen('details')} onSearch={() => setOpen('search')} />
        {complete ? <MessageList ref={list} face={face} at={at} /> : <div className="flex-1" />}
        <TypingLine roomId={room.id} />
        <Composer ref={composer} about={about} setAbout={setAbout} onSent={() => list.current?.toEnd()} />
      </section>
      <Suspense fallback={null}>
        {deleting && (
          <Confirm
            title={t('deleteTitle')}
            text={t('deleteText')}
            action={t('delete')}
            onConfirm={() => realtime.remove(deleting).catch((error: Error) => toast(error.message))}
            onClose={() => setDeleting(null)}
          />
        )}
        {seen && <SeenDialog message={seen} members={members} onClose={() => setSeen(null)} />}
        {open === 'details' && <RoomDetails onClose={() => setOpen(null)} />}
        {open === 'search' && <RoomSearch onClose={() => setOpen(null)} />}
      </Suspense>
    </ChatContext>
  );
}

const NOBODY: readonly never[] = [];

import clsx from 'clsx';
import { Check, Pencil, Reply, SendHorizontal, Smile, X } from 'lucide-react';
import { lazy, type Ref, Suspense, useEffect, useImperativeHandle, useLayoutEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { IconButton } from '@/components/ui/button';
import { toast } from '@/components/ui/toast';
import { usePeople, useRealtime } from '@/features/home/context';
import { countCharacters } from '@/lib/rich-text';
import type { Message } from '@/protocol';
import { useChat } from './context';
import { draftOf, keepDraft } from './drafts';

const EmojiPopover = lazy(() => import('./emoji').then(({ EmojiPopover }) => ({ default: EmojiPopover })));

const MOST = 4000;
/** From here on the rest is counted. */
const COUNTED = 3600;
const MAX_HEIGHT = 200;

export type About = { kind: 'reply' | 'edit'; message: Message } | null;

export interface ComposerHandle {
  focus(): void;
}

interface Props {
  about: About;
  setAbout(about: About): void;
  onSent(): void;
  ref: Ref<ComposerHandle>;
}

const isTouch = () => matchMedia('(pointer: coarse)').matches;

export function Composer({ about, setAbout, onSent, ref }: Props) {
  const { t } = useTranslation();
  const realtime = useRealtime();
  const { room, title, conversation } = useChat();
  const { me, typing } = realtime;
  const field = useRef<HTMLTextAreaElement>(null);
  const [text, setText] = useState(() => draftOf(me, room.id));
  const [draft, setDraft] = useState('');
  const length = countCharacters(text);
  const over = length - MOST;
  const ready = text.trim().length > 0 && over <= 0;
  const edits = about?.kind === 'edit';

  useImperativeHandle(ref, () => ({ focus: () => field.current?.focus() }), []);
  useEffect(() => {
    if (!isTouch()) field.current?.focus();
    return () => typing.stop();
  }, [typing]);
  // Editing borrows the field and gives the draft back.
  useEffect(() => {
    if (about?.kind === 'edit') {
      setDraft(text);
      setText(about.message.content);
    }
    if (about) field.current?.focus();
    // Only when it begins.
  }, [about]);
  useEffect(() => {
    if (!edits) keepDraft(me, room.id, text);
  }, [edits, me, room.id, text]);
  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = 'auto';
    element.style.height = `${Math.min(element.scrollHeight, MAX_HEIGHT)}px`;
  }, [text]);

  const leave = () => {
    if (edits) setText(draft);
    setAbout(null);
  };

  const submit = () => {
    if (!ready) return;
    typing.stop();
    if (about?.kind === 'edit') {
      const { message } = about;
      leave();
      if (text !== message.content) {
        realtime.edit(message, text).catch((error: Error) => {
          toast(error.message);
          setAbout({ kind: 'edit', message });
        });
      }
      return;
    }
    realtime.send(room.id, text, about?.message ?? null);
    conversation.divide(null);
    setText('');
    setAbout(null);
    onSent();
    field.current?.focus();
  };

  const onKeyDown = (event: React.KeyboardEvent<HTMLTextAreaElement>) => {
    if (event.nativeEvent.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey && !isTouch()) {
      event.preventDefault();
      submit();
    } else if (event.key === 'Escape' && about) {
      event.preventDefault();
      leave();
    } else if (event.key === 'ArrowUp' && text === '' && !about && !event.altKey) {
      const own = conversation.get().messages.findLast((one) => one.senderId === me && !one.deletedAt);
      if (!own) return;
      event.preventDefault();
      setAbout({ kind: 'edit', message: own });
    }
  };

  const insert = (emoji: string) => {
    const element = field.current;
    const [from, to] = [element?.selectionStart ?? text.length, element?.selectionEnd ?? text.length];
    setText(text.slice(0, from) + emoji + text.slice(to));
    requestAnimationFrame(() => {
      element?.focus();
      element?.setSelectionRange(from + emoji.length, from + emoji.length);
    });
  };

  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
      className="shrink-0 px-3 pt-1 pb-[max(.75rem,env(safe-area-inset-bottom))] sm:px-6"
    >
      <div className="rounded-2xl border border-line bg-raised shadow-sm focus-within:border-accent">
        {about && <AboutLine about={about} onCancel={leave} />}
        <div className="flex items-end gap-1 p-1">
          <Suspense fallback={<IconButton label={t('emoji')} disabled><Smile /></IconButton>}>
            <EmojiPopover label={t('emoji')} onChoose={insert}>
              <IconButton label={t('emoji')}><Smile /></IconButton>
            </EmojiPopover>
          </Suspense>
          <textarea
            ref={field}
            id="composer"
            rows={1}
            dir="auto"
            value={text}
            enterKeyHint={isTouch() ? 'enter' : 'send'}
            placeholder={t('messageTo', { name: title })}
            aria-label={edits ? t('editing') : t('messageTo', { name: title })}
            aria-invalid={over > 0 || undefined}
            aria-describedby="composer-count"
            onChange={(event) => {
              setText(event.target.value);
              if (edits) return;
              if (event.target.value.trim()) typing.start(room.id);
              else typing.stop();
            }}
            onBlur={() => typing.stop()}
            onKeyDown={onKeyDown}
            className="min-h-10 flex-1 resize-none bg-transparent px-1 py-2 leading-6 placeholder:text-soft focus:outline-none"
          />
          <p id="composer-count" aria-live="polite" className={clsx('self-center px-1 text-xs tabular-nums', over > 0 ? 'font-semibold text-danger' : 'text-soft')}>
            {length >= COUNTED && (over > 0 ? t('tooManyCharacters', { count: over }) : t('charactersLeft', { count: -over }))}
          </p>
          <button
            type="submit"
            disabled={!ready}
            aria-label={edits ? t('save') : t('send')}
            title={edits ? t('save') : t('send')}
            className="grid size-10 shrink-0 place-items-center rounded-xl bg-accent text-on-accent transition hover:brightness-110 disabled:bg-transparent disabled:text-soft"
          >
            {edits ? <Check aria-hidden className="size-5" /> : <SendHorizontal aria-hidden className="size-5 rtl:-scale-x-100" />}
          </button>
        </div>
      </div>
    </form>
  );
}

function AboutLine({ about, onCancel }: { about: NonNullable<About>; onCancel(): void }) {
  const { t } = useTranslation();
  const { me } = useRealtime();
  const people = usePeople();
  const edits = about.kind === 'edit';
  const name = about.message.senderId === me ? t('you') : people.get(about.message.senderId)?.displayName ?? '';
  const Icon = edits ? Pencil : Reply;
  return (
    <div className="flex animate-fade items-center gap-3 border-b border-line ps-3.5">
      <Icon aria-hidden className="size-4.5 shrink-0 text-accent" />
      <p className="min-w-0 flex-1 py-2 text-sm">
        <span className="block font-semibold text-accent">{edits ? t('editing') : t('replyTo', { name })}</span>
        <span className="block truncate text-soft">{about.message.content}</span>
      </p>
      <IconButton label={edits ? t('cancelEdit') : t('cancelReply')} onClick={onCancel}><X /></IconButton>
    </div>
  );
}

import { cleanup, fireEvent, render, screen } from '@testing-library/react';
import { useState } from 'react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { HereContext } from '@/features/home/context';
import { startI18n } from '@/i18n';
import { Store } from '@/lib/store';
import { Muted } from '@/lib/settings';
import type { Realtime } from '@/realtime/realtime';
import { Conversation } from '@/realtime/conversation';
import { message, messages, room } from '@/testing/fixtures';
import { type About, Composer } from './composer';
import { ChatContext, type ChatHere } from './context';
import { TypingLine } from './typing-line';

const ME = 1;
const send = vi.fn();
const edit = vi.fn(() => Promise.resolve());
const typing = Object.assign(new Store<ReadonlyMap<number, readonly number[]>>(new Map()), { start: vi.fn(), stop: vi.fn() });
const people = Object.assign(new Store(new Map([2, 3, 4, 5].map((id) => [id, { id, displayName: `P${id} Name`, username: `p${id}`, avatarUrl: null }]))), { want: vi.fn() });
const realtime = { me: ME, send, edit, typing, people } as unknown as Realtime;

async function setUp() {
  const all = [...messages(1, 2), message(3, { senderId: ME, content: 'my own' })];
  const conversation = new Conversation(1, {
    history: () => Promise.resolve({ messages: all, nextBefore: null, nextAfter: null }), sync: () => Promise.resolve(null),
  });
  await conversation.open();
  const chat = { room: room(1), members: [], title: 'Room 1', conversation } as unknown as ChatHere;
  function Page() {
    const [about, setAbout] = useState<About>(null);
    return (
      <HereContext value={{ realtime, muted: new Muted(ME) }}>
        <ChatContext value={chat}>
          <TypingLine roomId={1} />
          <Composer ref={null} about={about} setAbout={setAbout} onSent={vi.fn()} />
        </ChatContext>
      </HereContext>
    );
  }
  render(<Page />);
  return screen.getByRole<HTMLTextAreaElement>('textbox');
}

const put = (field: HTMLTextAreaElement, value: string) => fireEvent.change(field, { target: { value } });

beforeEach(async () => {
  sessionStorage.clear();
  vi.clearAllMocks();
  await startI18n();
});
afterEach(cleanup);

test('Enter sends as it was typed, Shift and Enter do not, nor does nothing but space', async () => {
  const field = await setUp();
  put(field, '   ');
  fireEvent.keyDown(field, { key: 'Enter' });
  put(field, ' two\nlines ');
  fireEvent.keyDown(field, { key: 'Enter', shiftKey: true });
  fireEvent.keyDown(field, { key: 'Enter', isComposing: true });
  expect(send).not.toHaveBeenCalled();
  fireEvent.keyDown(field, { key: 'Enter' });
  expect(send).toHaveBeenCalledExactlyOnceWith(1, ' two\nlines ', null);
  expect(field.value).toBe('');
});

test('counts down near the limit and stops at it', async () => {
  const field = await setUp();
  put(field, 'x'.repeat(3599));
  expect(screen.queryByText(/left/)).toBeNull();
  put(field, 'x'.repeat(3999));
  screen.getByText('1 character left');
  put(field, '😀'.repeat(4002));
  screen.getByText('2 too many');
  fireEvent.keyDown(field, { key: 'Enter' });
  expect(send).not.toHaveBeenCalled();
});

test('the arrow edits the last message of one’s own, Escape gives the draft back', async () => {
  const field = await setUp();
  fireEvent.keyDown(field, { key: 'ArrowUp' });
  expect(field.value).toBe('my own');
  put(field, 'my own, better');
  fireEvent.keyDown(field, { key: 'Enter' });
  expect(edit).toHaveBeenCalledWith(expect.objectContaining({ seq: 3 }), 'my own, better');
  expect(field.value).toBe('');
  fireEvent.keyDown(field, { key: 'ArrowUp' });
  fireEvent.keyDown(field, { key: 'Escape' });
  expect(field.value).toBe('');
  expect(send).not.toHaveBeenCalled();
});

test('a draft outlives the page', async () => {
  put(await setUp(), 'to be continued');
  cleanup();
  expect((await setUp()).value).toBe('to be continued');
});

test('typing is told while there is text, and stopped when it is gone', async () => {
  const field = await setUp();
  put(field, 'h');
  expect(typing.start).toHaveBeenCalledWith(1);
  put(field, '');
  expect(typing.stop).toHaveBeenCalled();
});

test('names at most three who type', async () => {
  await setUp();
  const says = (ids: number[], words: string) => {
    cleanup();
    typing.set(new Map([[1, ids]]));
    return setUp().then(() => screen.getByText(words));
  };
  await says([2], 'P2 is typing…');
  await says([2, 3], 'P2 and P3 are typing…');
  await says([2, 3, 4], 'P2, P3 and P4 are typing…');
  await says([2, 3, 4, 5], 'Several people are typing…');
});

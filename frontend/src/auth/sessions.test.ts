import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Authenticated } from '@/protocol';

const user = { id: 7, username: 'u', displayName: 'U', avatarUrl: null, lastSeen: null, createdAt: '' };
const tokens = (name: string, expiresIn = 900): Authenticated => ({ user, accessToken: `access ${name}`, refreshToken: `refresh ${name}`, expiresIn });
const answer = (status: number, body: unknown) => Promise.resolve(new Response(JSON.stringify(body), { status }));

beforeEach(() => {
  localStorage.clear();
  sessionStorage.clear();
  vi.resetModules();
});
afterEach(() => { vi.unstubAllGlobals(); });

test('a good token is given at once; one that was refused is renewed once for all who ask', async () => {
  const { accessToken, adopt } = await import('./sessions');
  const fetch = vi.fn(() => answer(200, tokens('two')));
  vi.stubGlobal('fetch', fetch);
  adopt(tokens('one'));
  expect(await accessToken()).toBe('access one');
  expect(fetch).not.toHaveBeenCalled();
  const all = await Promise.all([1, 2, 3].map(() => accessToken('access one')));
  expect(all).toEqual(['access two', 'access two', 'access two']);
  expect(fetch).toHaveBeenCalledTimes(1);
});

test('what another tab has renewed is taken over, not renewed again', async () => {
  const { accessToken, adopt } = await import('./sessions');
  const fetch = vi.fn();
  vi.stubGlobal('fetch', fetch);
  adopt(tokens('old', 1));
  localStorage.setItem('starling.session.7', JSON.stringify({ ...tokens('new'), expiresAt: Date.now() + 900_000 }));
  expect(await accessToken()).toBe('access new');
  expect(fetch).not.toHaveBeenCalled();
});

test('a refresh that is refused ends the session; a lost connection does not', async () => {
  const { accessToken, adopt, notice, session } = await import('./sessions');
  adopt(tokens('old', 1));
  vi.stubGlobal('fetch', vi.fn(() => Promise.reject(new TypeError('away'))));
  await expect(accessToken()).rejects.toMatchObject({ code: 'network' });
  expect(session.get()).not.toBeNull();
  vi.stubGlobal('fetch', vi.fn(() => answer(401, { error: { code: 'unauthorized', message: 'no' } })));
  await expect(accessToken()).rejects.toMatchObject({ status: 401 });
  expect(session.get()).toBeNull();
  expect(notice.get()).toBe('ended');
  expect(localStorage.getItem('starling.session.7')).toBeNull();
});

test('each tab shows its own account, and a new tab the last one', async () => {
  const { accounts, adopt, session, switchTo } = await import('./sessions');
  adopt(tokens('one'));
  adopt({ ...tokens('two'), user: { ...user, id: 8, displayName: 'Other' } });
  expect(accounts().map(({ id }) => id)).toEqual([8, 7]);
  switchTo(7);
  expect(session.get()?.user.id).toBe(7);
  vi.resetModules();
  expect((await import('./sessions')).session.get()?.user.id).toBe(7);
});

/**
 * The login sessions of this browser. `localStorage` holds one per account, so that all tabs share its
 * tokens; each tab remembers which account it shows, so that two windows can be two people.
 */
import { ApiError, call } from '@/lib/http';
import { lock } from '@/lib/locks';
import { local, tab } from '@/lib/storage';
import { Store } from '@/lib/store';
import type { Authenticated, User } from '@/protocol';

export interface Session {
  user: User;
  accessToken: string;
  refreshToken: string;
  /** In milliseconds since 1970, by the clock of this machine. */
  expiresAt: number;
}

export type Notice = 'ended' | 'revoked';

const PREFIX = 'starling.session.';
const ACCOUNT = 'starling.account';
/** A token that is about to expire is renewed before it is used. */
const LEEWAY_MS = 20_000;

const key = (userId: number) => `${PREFIX}${userId}`;

function first(): Session | null {
  const chosen = tab.read<number>(ACCOUNT) ?? local.read<number>(ACCOUNT);
  return chosen === null ? null : local.read<Session>(key(chosen));
}

/** The session that this tab shows. */
export const session = new Store<Session | null>(first());
/** Why there is none any more. */
export const notice = new Store<Notice | null>(null);

const current = session.get();
if (current) tab.write(ACCOUNT, current.user.id);

/** Every account that is logged in in this browser. */
export function accounts(): User[] {
  return local.keys()
    .filter((one) => one.startsWith(PREFIX))
    .map((one) => local.read<Session>(one)?.user)
    .filter((user) => user !== undefined)
    .sort((a, b) => a.displayName.localeCompare(b.displayName));
}

/** What a login, registration or refresh answered becomes the session of this tab. */
export function adopt(answer: Authenticated): void {
  keep(answer);
  notice.set(null);
}

function keep({ user, accessToken, refreshToken, expiresIn }: Authenticated): Session {
  const next: Session = { user, accessToken, refreshToken, expiresAt: Date.now() + expiresIn * 1000 };
  local.write(key(user.id), next);
  local.write(ACCOUNT, user.id);
  tab.write(ACCOUNT, user.id);
  session.set(next);
  return next;
}

/** Shows another account of this browser in this tab; `null` shows the log-in page. */
export function switchTo(userId: number | null): void {
  if (userId === null) tab.write(ACCOUNT, 0);
  else {
    tab.write(ACCOUNT, userId);
    local.write(ACCOUNT, userId);
  }
  notice.set(null);
  session.set(userId === null ? null : local.read<Session>(key(userId)));
}

/** The user's own profile changed. */
export function setUser(user: User): void {
  const held = session.get();
  if (!held || held.user.id !== user.id) return;
  const next = { ...held, user };
  local.write(key(user.id), next);
  session.set(next);
}

/** Forgets the session; other tabs notice. What else was stored for the user is removed by those who stored it. */
export function forget(userId: number, why: Notice | null): void {
  local.remove(key(userId));
  if (session.get()?.user.id !== userId) return;
  notice.set(why);
  session.set(null);
}

/**
 * An access token that is good now. A refresh token is good for one use, and a second use ends the session:
 * the tabs take turns, and whoever comes second finds the new tokens.
 */
export async function accessToken(refused?: string): Promise<string> {
  const held = session.get();
  if (!held) throw new ApiError(401, { code: 'unauthorized', message: 'Not logged in.' });
  const good = (one: Session) => one.accessToken !== refused && one.expiresAt - LEEWAY_MS > Date.now();
  if (good(held)) return held.accessToken;
  const { id } = held.user;
  return lock(`starling-refresh-${id}`, async () => {
    const stored = local.read<Session>(key(id)) ?? held;
    if (stored.accessToken !== held.accessToken && good(stored)) {
      if (session.get()?.user.id === id) session.set(stored);
      return stored.accessToken;
    }
    try {
      const answer = await call<Authenticated>('POST', '/auth/refresh', { refreshToken: stored.refreshToken });
      // Somebody may have switched accounts meanwhile.
      if (session.get()?.user.id === id) return keep(answer).accessToken;
      local.write(key(id), { ...answer, expiresAt: Date.now() + answer.expiresIn * 1000 });
      return answer.accessToken;
    } catch (error) {
      if (error instanceof ApiError && (error.status === 401 || error.status === 400)) forget(id, 'ended');
      throw error;
    }
  });
}

/** Ends the session on the server too. */
export async function logOut(): Promise<void> {
  const held = session.get();
  if (!held) return;
  const token = await accessToken().catch(() => held.accessToken);
  await call('POST', '/auth/logout', undefined, token).catch(() => undefined);
  forget(held.user.id, null);
}

globalThis.addEventListener?.('storage', (event) => {
  const held = session.get();
  if (!held || event.key !== key(held.user.id)) return;
  const stored = local.read<Session>(key(held.user.id));
  if (stored) session.set(stored);
  else {
    notice.set('ended');
    session.set(null);
  }
});

/** What people set for this browser. */
import { local } from './storage';
import { Store } from './store';

export type Theme = 'system' | 'light' | 'dark';
export type Language = 'en' | 'de';

const THEME = 'starling.theme';
const LANGUAGE = 'starling.language';
const NOTIFY = 'starling.notify';

/** Plain text, since the script that runs before the first paint reads it too. */
function readTheme(): Theme {
  try {
    const value = localStorage.getItem(THEME);
    return value === 'light' || value === 'dark' ? value : 'system';
  } catch {
    return 'system';
  }
}

export const theme = new Store<Theme>(readTheme());
export const notify = new Store<boolean>(local.read<boolean>(NOTIFY) ?? false);
export const language = new Store<Language>(
  local.read<Language>(LANGUAGE) ?? (navigator.language.startsWith('de') ? 'de' : 'en'),
);

const darkSystem = () => globalThis.matchMedia?.('(prefers-color-scheme: dark)');

function paint(): void {
  const chosen = theme.get();
  const dark = chosen === 'dark' || (chosen === 'system' && darkSystem()?.matches);
  document.documentElement.dataset['theme'] = dark ? 'dark' : 'light';
}

theme.subscribe(() => {
  try {
    localStorage.setItem(THEME, theme.get());
  } catch {
    // It holds until the page is closed.
  }
  paint();
});
notify.subscribe(() => local.write(NOTIFY, notify.get()));
language.subscribe(() => local.write(LANGUAGE, language.get()));
darkSystem()?.addEventListener('change', paint);
globalThis.addEventListener?.('storage', ({ key }) => {
  if (key === THEME) theme.set(readTheme());
  if (key === NOTIFY) notify.set(local.read<boolean>(NOTIFY) ?? false);
});

/** Rooms of which this user hears nothing in this browser. */
export class Muted extends Store<ReadonlySet<number>> {
  readonly #key: string;

  constructor(userId: number) {
    const key = `starling.muted.${userId}`;
    super(new Set(local.read<number[]>(key) ?? []));
    this.#key = key;
  }

  toggle(roomId: number): void {
    const next = new Set(this.get());
    if (!next.delete(roomId)) next.add(roomId);
    local.write(this.#key, [...next]);
    this.set(next);
  }
}

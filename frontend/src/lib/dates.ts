/** Times as people read them, by the browser's own knowledge of languages. */
const formats = new Map<string, Intl.DateTimeFormat>();

function format(language: string, name: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${language}/${name}`;
  const made = formats.get(key) ?? new Intl.DateTimeFormat(language, options);
  formats.set(key, made);
  return made;
}

/** The local day, as a key: `2026-11-24`. */
export function dayKey(iso: string): string {
  const date = new Date(iso);
  return [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, '0')).join('-');
}

function daysAgo(iso: string, now = new Date()): number {
  const start = (date: Date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  return Math.round((start(now) - start(new Date(iso))) / 86_400_000);
}

export const clock = (language: string, iso: string): string =>
  format(language, 'clock', { hour: 'numeric', minute: '2-digit' }).format(new Date(iso));

export const full = (language: string, iso: string): string =>
  format(language, 'full', { dateStyle: 'full', timeStyle: 'short' }).format(new Date(iso));

/** "Today", "Monday", "24 November". */
export function dayName(language: string, iso: string, words: { today: string; yesterday: string }): string {
  const ago = daysAgo(iso);
  if (ago === 0) return words.today;
  if (ago === 1) return words.yesterday;
  const date = new Date(iso);
  if (ago > 1 && ago < 7) return format(language, 'weekday', { weekday: 'long' }).format(date);
  const year = date.getFullYear() === new Date().getFullYear() ? {} : { year: 'numeric' as const };
  return format(language, `day${'year' in year}`, { weekday: 'short', day: 'numeric', month: 'long', ...year }).format(date);
}

/** For a list: the time of today, else the day. */
export function shortTime(language: string, iso: string, words: { yesterday: string }): string {
  const ago = daysAgo(iso);
  if (ago <= 0) return clock(language, iso);
  if (ago === 1) return words.yesterday;
  const date = new Date(iso);
  if (ago < 7) return format(language, 'short-weekday', { weekday: 'short' }).format(date);
  return format(language, 'date', { day: 'numeric', month: 'short', ...(ago > 330 ? { year: '2-digit' as const } : {}) }).format(date);
}

/** "5 minutes ago". */
export function ago(language: string, iso: string, now = Date.now()): string {
  const relative = new Intl.RelativeTimeFormat(language, { numeric: 'auto' });
  const minutes = Math.round((new Date(iso).getTime() - now) / 60_000);
  if (Math.abs(minutes) < 60) return relative.format(Math.min(0, minutes), 'minute');
  const hours = Math.round(minutes / 60);
  if (Math.abs(hours) < 24) return relative.format(hours, 'hour');
  return relative.format(Math.round(hours / 24), 'day');
}

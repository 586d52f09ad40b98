/** One of eight colours, the same wherever an id appears. */
export const colourOf = (id: number): number => (id * 3) % 8;

/** At most two letters, by whole characters. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const first = (word = '') => [...word].find((letter) => /[\p{L}\p{N}]/u.test(letter)) ?? '';
  const letters = words.length > 1 ? first(words[0]) + first(words.at(-1)) : first(words[0]);
  return letters.toLocaleUpperCase();
}

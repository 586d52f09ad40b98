import { describe, expect, test, vi } from 'vitest';
import { ago, dayName, shortTime } from './dates';
import { uuid } from './ids';
import { lock } from './locks';
import { colourOf, initials } from './names';
import { countCharacters, isBigEmoji, pieces } from './rich-text';
import { Store } from './store';

describe('text', () => {
  const kinds = (text: string) => pieces(text).map(({ kind, text: part }) => `${kind}:${part}`);

  test('is cut into links, code and the rest', () => {
    expect(kinds('see https://a.example/x?y=1, please')).toEqual(['text:see ', 'link:https://a.example/x?y=1', 'text:, please']);
    expect(pieces('www.example.org')[0]).toEqual({ kind: 'link', text: 'www.example.org', href: 'https://www.example.org' });
    expect(kinds('run `rm -rf` https://x.example')).toEqual(['text:run ', 'code:rm -rf', 'text: ', 'link:https://x.example']);
    expect(kinds('before\n```sh\nls\n```\nafter')).toEqual(['text:before', 'block:ls', 'text:after']);
    expect(kinds('`https://not.a.link`')).toEqual(['code:https://not.a.link']);
  });

  test('takes nothing for a link that is none', () => {
    for (const text of ['javascript:alert(1)', 'data:text/html,x', '//example.org', 'ftp://old.example', 'file:///etc/passwd']) {
      expect(pieces(text).some(({ kind }) => kind === 'link'), text).toBe(false);
    }
  });

  test('loses nothing', () => {
    const text = 'a `b` https://c.example d';
    expect(pieces(text).map((one) => one.text).join('')).toBe('a b https://c.example d');
  });

  test('of a few emoji alone is shown large', () => {
    for (const text of ['👍', '👨‍👩‍👧 🎉', '❤️']) expect(isBigEmoji(text), text).toBe(true);
    for (const text of ['👍👍👍👍', 'ok 👍', '12', '']) expect(isBigEmoji(text), text).toBe(false);
  });

  test('is counted as the server counts', () => {
    expect(countCharacters('aä😀')).toBe(3);
  });
});

describe('names', () => {
  test('have initials by whole characters', () => {
    expect(['Alice Adams', 'bob', '  Änne   von  Örtzen ', '😀 Smile', ''].map(initials)).toEqual(['AA', 'B', 'ÄÖ', 'S', '']);
  });

  test('have colours that stay and differ between neighbours', () => {
    expect(new Set([1, 2, 3, 4, 5, 6, 7, 8].map(colourOf)).size).toBe(8);
    expect(colourOf(4)).toBe(colourOf(4));
  });
});

describe('dates', () => {
  test('are said as people say them', () => {
    const day = 86_400_000;
    const iso = (ms: number) => new Date(Date.now() - ms).toISOString();
    const words = { today: 'Today', yesterday: 'Yesterday' };
    expect(dayName('en', iso(0), words)).toBe('Today');
    expect(dayName('en', iso(day), words)).toBe('Yesterday');
    expect(dayName('en', '2020-02-03T12:00:00.000Z', words)).toBe('Mon, February 3, 2020');
    expect(dayName('de', '2020-02-03T12:00:00.000Z', words)).toBe('Mo., 3. Februar 2020');
    expect(shortTime('en', iso(day), words)).toBe('Yesterday');
    expect(ago('en', iso(5 * 60_000))).toBe('5 minutes ago');
    expect(ago('de', iso(3 * 3_600_000))).toBe('vor 3 Stunden');
  });
});

describe('small parts', () => {
  test('an id is a UUID of version 4, with or without a secure origin', () => {
    const form = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
    expect(uuid()).toMatch(form);
    vi.stubGlobal('crypto', { getRandomValues: (bytes: Uint8Array) => bytes.map((_, index) => index * 16) });
    expect(uuid()).toMatch(form);
    vi.unstubAllGlobals();
  });

  test('a store tells changes only', () => {
    const store = new Store(1);
    const watcher = vi.fn();
    const end = store.subscribe(watcher);
    store.set(1);
    store.set(2);
    end();
    store.set(3);
    expect(watcher).toHaveBeenCalledTimes(1);
  });

  test('who locks waits for who has locked, also after a failure', async () => {
    const order: string[] = [];
    const work = (name: string, fails = false) => lock('x', async () => {
      order.push(`${name} begins`);
      await Promise.resolve();
      order.push(`${name} ends`);
      if (fails) throw new Error(name);
    });
    await Promise.allSettled([work('a', true), work('b')]);
    expect(order).toEqual(['a begins', 'a ends', 'b begins', 'b ends']);
  });
});

import { expect, test } from 'vitest';
import { de } from './de';
import { en } from './en';

const places = (text: string) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map(([, name]) => name).sort();

test('every text is there in both languages, with the same places to fill', () => {
  expect(Object.keys(de).sort()).toEqual(Object.keys(en).sort());
  for (const [key, text] of Object.entries(en)) expect(places(de[key as keyof typeof en]), key).toEqual(places(text));
});

/** A message's text, cut into what is shown differently. Everything stays text. */
import { LinkifyIt } from 'linkify-it';

export type Piece =
  | { kind: 'text'; text: string }
  | { kind: 'link'; text: string; href: string }
  | { kind: 'code'; text: string }
  | { kind: 'block'; text: string };

const linkify = new LinkifyIt({ fuzzyLink: false, fuzzyEmail: true, fuzzyIP: false })
  .add('ftp:', null)
  .add('//', null)
  .add('www.', {
    validate: (text, position) => /^[a-z0-9-]+(\.[a-z0-9-]+)+(\/[^\s<>"]*)?/i.exec(text.slice(position))?.[0].length ?? 0,
    normalize: (match) => { match.url = `https://${match.url}`; },
  });

/** A block stands alone: the line breaks around it are its own. */
const CODE = /\n?```(?:[a-z0-9+#-]*\n)?([\s\S]+?)```\n?|`([^`\n]+)`/gi;

function links(text: string): Piece[] {
  const pieces: Piece[] = [];
  let end = 0;
  for (const match of linkify.match(text) ?? []) {
    if (!/^(https?:|mailto:)/i.test(match.url)) continue;
    if (match.index > end) pieces.push({ kind: 'text', text: text.slice(end, match.index) });
    pieces.push({ kind: 'link', text: match.text, href: match.url });
    end = match.lastIndex;
  }
  if (end < text.length) pieces.push({ kind: 'text', text: text.slice(end) });
  return pieces;
}

export function pieces(text: string): Piece[] {
  const all: Piece[] = [];
  let end = 0;
  for (const match of text.matchAll(CODE)) {
    all.push(...links(text.slice(end, match.index)));
    const [whole, block, inline] = match;
    all.push(block === undefined ? { kind: 'code', text: inline ?? '' } : { kind: 'block', text: block.replace(/\n$/, '') });
    end = match.index + whole.length;
  }
  all.push(...links(text.slice(end)));
  return all;
}

const EMOJI = /^(?:\p{Emoji_Presentation}|\p{Extended_Pictographic}|\p{Emoji_Modifier}|\u200d|\ufe0f|\u20e3)+$/u;

/** Up to three emoji and nothing else: shown large. */
export function isBigEmoji(text: string): boolean {
  const bare = text.replace(/\s/g, '');
  if (bare.length === 0 || bare.length > 40 || !EMOJI.test(bare)) return false;
  return [...new Intl.Segmenter(undefined, { granularity: 'grapheme' }).segment(bare)].length <= 3;
}

/** As the server counts: Unicode scalar values. */
export function countCharacters(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

import { memo } from 'react';
import { isBigEmoji, pieces } from '@/lib/rich-text';

/** Text with links and code. Nothing of it is ever taken for HTML. */
export const MessageText = memo(function MessageText({ text }: { text: string }) {
  if (isBigEmoji(text)) return <p className="text-[2.4rem] leading-tight">{text}</p>;
  return (
    <div dir="auto" className="min-w-0 grow whitespace-pre-wrap [overflow-wrap:anywhere]">
      {pieces(text).map((piece, index) => {
        switch (piece.kind) {
          case 'link':
            return (
              <a key={index} href={piece.href} target="_blank" rel="noopener noreferrer nofollow" className="text-accent underline underline-offset-2">
                {piece.text}
              </a>
            );
          case 'code':
            return <code key={index} className="rounded-md bg-black/8 px-1.5 py-0.5 font-mono text-[.88em] dark:bg-white/10">{piece.text}</code>;
          case 'block':
            return (
              <pre key={index} tabIndex={0} className="my-1 max-w-full overflow-x-auto rounded-lg bg-black/8 p-2.5 font-mono text-[.85em] leading-snug whitespace-pre dark:bg-black/30">
                <code>{piece.text}</code>
              </pre>
            );
          default:
            return piece.text;
        }
      })}
    </div>
  );
});

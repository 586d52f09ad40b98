import { EmojiPicker as F } from 'frimousse';
import { useTranslation } from 'react-i18next';
import { INPUT } from '@/components/ui/field';

const after = (name: 'aria-rowindex' | 'aria-colindex', rest: object) => {
  const place = (rest as Record<string, unknown>)[name];
  return typeof place === 'number' ? { [name]: place + 1 } : {};
};

/** All emoji, searchable, named in the language that was chosen. The names come from this server. */
export function EmojiPicker({ onChoose }: { onChoose(emoji: string): void }) {
  const { t, i18n } = useTranslation();
  return (
    <F.Root
      locale={i18n.language === 'de' ? 'de' : 'en'}
      emojibaseUrl="/emoji"
      columns={8}
      onEmojiSelect={({ emoji }) => onChoose(emoji)}
      className="flex h-80 w-80 flex-col"
    >
      <F.Search autoFocus aria-label={t('emoji')} placeholder={t('emoji')} className={INPUT} />
      <F.Viewport className="relative mt-1 flex-1 outline-hidden">
        <F.Loading className="absolute inset-0 grid place-items-center text-soft">{t('loading')}</F.Loading>
        <F.Empty className="absolute inset-0 grid place-items-center text-soft">–</F.Empty>
        <F.List
          className="pb-1 select-none"
          components={{
            CategoryHeader: ({ category, ...rest }) => <div {...rest} className="bg-raised px-1 py-1.5 text-xs font-semibold text-soft">{category.label}</div>,
            // Places in a grid count from 1.
            Row: ({ children, ...rest }) => <div {...rest} {...after('aria-rowindex', rest)} className="scroll-my-1">{children}</div>,
            Emoji: ({ emoji, ...rest }) => (
              <button {...rest} {...after('aria-colindex', rest)} className="grid size-9.5 place-items-center rounded-lg text-xl data-active:bg-tint">{emoji.emoji}</button>
            ),
          }}
        />
      </F.Viewport>
    </F.Root>
  );
}

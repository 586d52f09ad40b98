import { Popover as P } from 'radix-ui';
import { lazy, type ReactNode, Suspense, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Plus } from 'lucide-react';
import { IconButton } from '@/components/ui/button';
import { Spinner } from '@/components/ui/states';

const Picker = lazy(() => import('./emoji-picker').then(({ EmojiPicker }) => ({ default: EmojiPicker })));
const QUICK = ['👍', '❤️', '😂', '😮', '😢', '🙏'];

const BOX = 'z-50 animate-rise rounded-2xl border border-line bg-raised p-1.5 shadow-xl outline-none';

interface Props {
  children: ReactNode;
  label: string;
  onChoose(emoji: string): void;
  /** Shows a few at first, and all on request. */
  quick?: boolean;
  onOpenChange?(open: boolean): void;
}

export function EmojiPopover({ children, label, onChoose, quick = false, onOpenChange }: Props) {
  const { t } = useTranslation();
  const [open, setOpen] = useState(false);
  const [all, setAll] = useState(!quick);
  const change = (next: boolean) => {
    setOpen(next);
    setAll(!quick);
    onOpenChange?.(next);
  };
  const choose = (emoji: string) => {
    change(false);
    onChoose(emoji);
  };
  return (
    <P.Root open={open} onOpenChange={change}>
      <P.Trigger asChild>{children}</P.Trigger>
      <P.Portal>
        <P.Content className={BOX} side="top" sideOffset={8} collisionPadding={8} aria-label={label}>
          {all
            ? <Suspense fallback={<Spinner />}><Picker onChoose={choose} /></Suspense>
            : (
              <div className="flex">
                {QUICK.map((emoji) => (
                  <button key={emoji} type="button" onClick={() => choose(emoji)} className="size-10 rounded-xl text-xl transition hover:scale-115 hover:bg-hover">{emoji}</button>
                ))}
                <IconButton label={t('more')} onClick={() => setAll(true)}><Plus /></IconButton>
              </div>
            )}
        </P.Content>
      </P.Portal>
    </P.Root>
  );
}

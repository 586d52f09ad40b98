import { X } from 'lucide-react';
import { Toast as T } from 'radix-ui';
import { useTranslation } from 'react-i18next';
import { Store } from '@/lib/store';
import { useStore } from '@/lib/use-store';
import { IconButton } from './button';

interface Toast {
  id: number;
  text: string;
}

/** More at once would hide the page. */
const SHOWN = 3;
const toasts = new Store<readonly Toast[]>([]);
let count = 0;

export function toast(text: string): void {
  count += 1;
  toasts.set([...toasts.get(), { id: count, text }].slice(-SHOWN));
}

export function Toasts() {
  const { t } = useTranslation();
  const list = useStore(toasts);
  return (
    <T.Provider swipeDirection="right" duration={5000}>
      {list.map(({ id, text }) => (
        <T.Root
          key={id}
          onOpenChange={(open) => { if (!open) toasts.set(toasts.get().filter((one) => one.id !== id)); }}
          className="flex animate-rise items-center gap-2 rounded-2xl bg-ink py-2 ps-4 pe-2 text-panel shadow-xl"
        >
          <T.Description className="flex-1">{text}</T.Description>
          <T.Close asChild><IconButton label={t('close')} className="text-panel hover:bg-white/10 hover:text-panel"><X /></IconButton></T.Close>
        </T.Root>
      ))}
      <T.Viewport className="fixed inset-x-4 bottom-24 z-60 mx-auto grid max-w-sm gap-2 outline-none sm:bottom-6" />
    </T.Provider>
  );
}

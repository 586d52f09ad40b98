import clsx from 'clsx';
import { X } from 'lucide-react';
import { AlertDialog as A, Dialog as D } from 'radix-ui';
import { type ReactNode, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Button, IconButton } from './button';

const SHADE = 'fixed inset-0 z-40 animate-fade bg-black/45 backdrop-blur-[2px]';
const BOX = 'fixed z-50 flex animate-rise flex-col bg-panel text-ink shadow-2xl outline-none '
  + 'inset-x-0 bottom-0 max-h-[92dvh] rounded-t-3xl sm:inset-auto sm:start-1/2 sm:top-1/2 sm:w-[calc(100%-2rem)] '
  + 'sm:-translate-x-1/2 sm:-translate-y-1/2 rtl:sm:translate-x-1/2 sm:rounded-3xl sm:border sm:border-line';

interface Props {
  open: boolean;
  onOpenChange(open: boolean): void;
  title: string;
  /** Read out, not shown. */
  description?: string;
  wide?: boolean;
  children: ReactNode;
  footer?: ReactNode;
}

export function Dialog({ open, onOpenChange, title, description, wide = false, children, footer }: Props) {
  const { t } = useTranslation();
  return (
    <D.Root open={open} onOpenChange={onOpenChange}>
      <D.Portal>
        <D.Overlay className={SHADE} />
        <D.Content className={clsx(BOX, wide ? 'sm:max-w-xl' : 'sm:max-w-md')} {...(description ? {} : { 'aria-describedby': undefined })}>
          <header className="flex items-center gap-3 px-5 pt-4 pb-2">
            <D.Title className="min-w-0 flex-1 truncate text-lg font-semibold">{title}</D.Title>
            <D.Close asChild><IconButton label={t('close')}><X /></IconButton></D.Close>
          </header>
          {description && <D.Description className="sr-only">{description}</D.Description>}
          <div className="min-h-0 flex-1 overflow-y-auto px-5 pt-1 pb-5">{children}</div>
          {footer && <footer className="flex justify-end gap-2 border-t border-line px-5 py-3">{footer}</footer>}
        </D.Content>
      </D.Portal>
    </D.Root>
  );
}

interface ConfirmProps {
  title: string;
  text: string;
  action: string;
  onConfirm(): Promise<void> | void;
  onClose(): void;
}

/** Asks before something that can't be taken back. */
export function Confirm({ title, text, action, onConfirm, onClose }: ConfirmProps) {
  const { t } = useTranslation();
  const [busy, setBusy] = useState(false);
  return (
    <A.Root open onOpenChange={(open) => { if (!open) onClose(); }}>
      <A.Portal>
        <A.Overlay className={SHADE} />
        <A.Content className={clsx(BOX, 'p-5 sm:max-w-sm')}>
          <A.Title className="text-lg font-semibold">{title}</A.Title>
          <A.Description className="mt-2 text-soft">{text}</A.Description>
          <div className="mt-5 flex justify-end gap-2">
            <A.Cancel asChild><Button>{t('cancel')}</Button></A.Cancel>
            <Button
              kind="danger"
              busy={busy}
              onClick={() => {
                setBusy(true);
                void Promise.resolve(onConfirm()).finally(onClose);
              }}
            >
              {action}
            </Button>
          </div>
        </A.Content>
      </A.Portal>
    </A.Root>
  );
}

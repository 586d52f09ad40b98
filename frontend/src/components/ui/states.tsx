import { CircleAlert } from 'lucide-react';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { Button } from './button';

export function Spinner({ label }: { label?: string }) {
  const { t } = useTranslation();
  return (
    <span role="status" className="inline-grid place-items-center p-2">
      <span aria-hidden className="size-5 animate-spin rounded-full border-2 border-line border-t-accent" />
      <span className="sr-only">{label ?? t('loading')}</span>
    </span>
  );
}

export function Empty({ icon, title, children }: { icon?: ReactNode; title: string; children?: ReactNode }) {
  return (
    <div className="mx-auto grid max-w-sm animate-fade justify-items-center gap-2 px-6 py-10 text-center">
      {icon && <div aria-hidden className="mb-1 grid size-14 place-items-center rounded-2xl bg-tint text-accent [&>svg]:size-7">{icon}</div>}
      <h2 className="text-lg font-semibold">{title}</h2>
      <div className="text-soft">{children}</div>
    </div>
  );
}

export function Failed({ onRetry, text }: { onRetry(): void; text?: string }) {
  const { t } = useTranslation();
  return (
    <div role="alert" className="mx-auto grid max-w-sm justify-items-center gap-3 px-6 py-10 text-center">
      <CircleAlert aria-hidden className="size-8 text-danger" />
      <p className="text-soft">{text ?? t('failedToLoad')}</p>
      <Button onClick={onRetry}>{t('retry')}</Button>
    </div>
  );
}

export function Skeleton({ className }: { className: string }) {
  return <span aria-hidden className={`block animate-shimmer rounded-lg bg-line ${className}`} />;
}

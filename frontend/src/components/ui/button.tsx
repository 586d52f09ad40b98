import clsx from 'clsx';
import type { ComponentProps } from 'react';

type Kind = 'primary' | 'plain' | 'danger' | 'ghost';

const KINDS: Record<Kind, string> = {
  primary: 'bg-accent text-on-accent hover:brightness-110',
  plain: 'bg-raised border border-line hover:bg-hover',
  danger: 'bg-danger text-white dark:text-[#2a0f0d] hover:brightness-110',
  ghost: 'text-accent hover:bg-hover',
};

export function Button({ kind = 'plain', busy = false, className, children, disabled, ...rest }:
  ComponentProps<'button'> & { kind?: Kind; busy?: boolean }) {
  return (
    <button
      type="button"
      disabled={disabled || busy}
      aria-busy={busy || undefined}
      className={clsx(
        'inline-flex min-h-10 items-center justify-center gap-2 rounded-xl px-4 py-2 font-medium transition',
        'disabled:opacity-60', KINDS[kind], className,
      )}
      {...rest}
    >
      {children}
    </button>
  );
}

/** A button with a picture; the label is for those who can't see it, and the tooltip. */
export function IconButton({ label, className, children, ...rest }: ComponentProps<'button'> & { label: string }) {
  return (
    <button
      type="button"
      aria-label={label}
      title={label}
      className={clsx(
        'inline-grid size-10 shrink-0 place-items-center rounded-xl text-soft transition hover:bg-hover hover:text-ink',
        'disabled:opacity-50 [&>svg]:size-5', className,
      )}
      {...rest}
    >
      {children}
    </button>
  );
}

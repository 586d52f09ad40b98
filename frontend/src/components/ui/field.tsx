import clsx from 'clsx';
import { type ComponentProps, type ReactNode, useId } from 'react';

export const INPUT = 'block w-full min-h-11 rounded-xl border border-field bg-raised px-3.5 py-2 text-ink placeholder:text-soft '
  + 'focus:outline-2 focus:outline-offset-0 focus:outline-accent focus:border-accent aria-invalid:border-danger';

interface Props extends ComponentProps<'input'> {
  label: string;
  /** Shown beside the label. */
  aside?: string;
  hint?: string | undefined;
  error?: string | undefined;
  end?: ReactNode;
}

export function Field({ label, aside, hint, error, end, className, ...rest }: Props) {
  const id = useId();
  const note = error ?? hint;
  return (
    <div className={className}>
      <label htmlFor={id} className="mb-1 flex justify-between gap-2 text-sm font-medium">
        {label}
        {aside && <span className="font-normal text-soft">{aside}</span>}
      </label>
      <div className="relative">
        <input
          id={id}
          className={clsx(INPUT, end && 'pe-12')}
          aria-invalid={error ? true : undefined}
          aria-describedby={note ? `${id}-note` : undefined}
          {...rest}
        />
        {end && <div className="absolute inset-y-0 end-0.5 grid place-items-center">{end}</div>}
      </div>
      {note && <p id={`${id}-note`} role={error ? 'alert' : undefined} className={clsx('mt-1 text-sm', error ? 'text-danger' : 'text-soft')}>{note}</p>}
    </div>
  );
}

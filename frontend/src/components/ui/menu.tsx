import clsx from 'clsx';
import { DropdownMenu as M } from 'radix-ui';
import type { ComponentProps, ReactNode } from 'react';

/** Not modal: what is around it stays there for screen readers and the wheel. */
export function MenuRoot(props: ComponentProps<typeof M.Root>) {
  return <M.Root modal={false} {...props} />;
}

export const MenuTrigger = M.Trigger;

export function MenuContent({ children, align = 'end', label }: { children: ReactNode; align?: 'start' | 'end'; label?: string }) {
  return (
    <M.Portal>
      <M.Content
        align={align}
        sideOffset={6}
        collisionPadding={8}
        aria-label={label}
        className="z-50 max-h-(--radix-dropdown-menu-content-available-height) min-w-52 max-w-72 animate-rise overflow-y-auto rounded-2xl border border-line bg-raised p-1.5 shadow-xl"
      >
        {children}
      </M.Content>
    </M.Portal>
  );
}

export function MenuItem({ icon, children, danger = false, onSelect }:
  { icon?: ReactNode; children: ReactNode; danger?: boolean; onSelect(): void }) {
  return (
    <M.Item
      onSelect={onSelect}
      className={clsx(
        'flex min-h-10 items-center gap-3 rounded-xl px-3 py-2 outline-none select-none data-highlighted:bg-hover [&>svg]:size-4.5 [&>svg]:shrink-0',
        danger ? 'text-danger' : '[&>svg]:text-soft',
      )}
    >
      {icon}
      <span className="min-w-0 truncate">{children}</span>
    </M.Item>
  );
}

export function MenuLabel({ children }: { children: ReactNode }) {
  return <M.Label className="px-3 py-2 text-sm text-soft">{children}</M.Label>;
}

export function MenuLine() {
  return <M.Separator className="mx-2 my-1 h-px bg-line" />;
}

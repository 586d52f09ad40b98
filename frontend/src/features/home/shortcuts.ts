import { useQueryClient } from '@tanstack/react-query';
import { type RefObject, useEffect } from 'react';
import { useLocation } from 'wouter';
import type { Room } from '@/protocol';
import { ROOMS } from '@/realtime/realtime';
import { useRealtime } from './context';
import type { Panel } from './home';

const writes = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

/** The keys that work everywhere. Those of a conversation are where it is. */
export function useShortcuts({ openPanel, search }: { openPanel(panel: Panel): void; search: RefObject<HTMLInputElement | null> }): void {
  const realtime = useRealtime();
  const queries = useQueryClient();
  const [, navigate] = useLocation();
  useEffect(() => {
    const step = (by: number) => {
      const rooms = queries.getQueryData<Room[]>(ROOMS) ?? [];
      const index = rooms.findIndex(({ id }) => id === realtime.active.get());
      const next = rooms[index < 0 ? 0 : Math.min(rooms.length - 1, Math.max(0, index + by))];
      if (next) navigate(`/rooms/${next.id}`);
    };
    const onKey = (event: KeyboardEvent) => {
      const command = event.ctrlKey || event.metaKey;
      const key = event.key.toLowerCase();
      if (document.querySelector('[role="dialog"], [role="alertdialog"], [role="menu"]')) return;
      if (command && !event.shiftKey && key === 'k') search.current?.focus();
      else if (command && key === '/') openPanel('help');
      else if (event.key === '?' && !writes(event.target)) openPanel('help');
      else if (event.altKey && event.key === 'ArrowDown') step(1);
      else if (event.altKey && event.key === 'ArrowUp') step(-1);
      else if (event.altKey && key === 'g') openPanel('group');
      else return;
      event.preventDefault();
    };
    window.addEventListener('keydown', onKey);
    return () => window.removeEventListener('keydown', onKey);
  }, [realtime, queries, navigate, openPanel, search]);
}

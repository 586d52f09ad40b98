import { createContext, useContext } from 'react';
import { useStore } from '@/lib/use-store';
import type { Muted } from '@/lib/settings';
import type { Person } from '@/realtime/people';
import type { Realtime } from '@/realtime/realtime';

export interface Here {
  realtime: Realtime;
  muted: Muted;
}

export const HereContext = createContext<Here | null>(null);

export function useHere(): Here {
  const here = useContext(HereContext);
  if (!here) throw new Error('useHere outside of HereContext');
  return here;
}

export const useRealtime = (): Realtime => useHere().realtime;

/** Everybody who is known, by id. */
export const usePeople = (): ReadonlyMap<number, Person> => useStore(useRealtime().people);

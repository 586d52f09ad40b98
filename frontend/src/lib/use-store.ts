import { useSyncExternalStore } from 'react';
import type { Store } from './store';

/** The value of a store, and a new rendering when it changes. */
export function useStore<T>(store: Store<T>): T {
  return useSyncExternalStore(store.subscribe, store.get, store.get);
}

import { useSyncExternalStore } from 'react';

const focused = () => document.visibilityState === 'visible' && document.hasFocus();

function subscribe(watcher: () => void): () => void {
  window.addEventListener('focus', watcher);
  window.addEventListener('blur', watcher);
  document.addEventListener('visibilitychange', watcher);
  return () => {
    window.removeEventListener('focus', watcher);
    window.removeEventListener('blur', watcher);
    document.removeEventListener('visibilitychange', watcher);
  };
}

/** Whether somebody looks at this page now. */
export const usePageFocus = (): boolean => useSyncExternalStore(subscribe, focused, focused);

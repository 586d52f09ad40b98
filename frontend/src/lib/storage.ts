/** JSON in `localStorage` or `sessionStorage`; a browser that refuses storage forgets, no more. */
export interface Box {
  read<T>(key: string): T | null;
  write(key: string, value: unknown): void;
  remove(key: string): void;
  keys(): string[];
}

function box(of: () => Storage): Box {
  const attempt = <T>(action: (storage: Storage) => T, otherwise: T): T => {
    try {
      return action(of());
    } catch {
      return otherwise;
    }
  };
  return {
    read: <T>(key: string) => attempt((storage) => JSON.parse(storage.getItem(key) ?? 'null') as T | null, null),
    write: (key, value) => attempt((storage) => storage.setItem(key, JSON.stringify(value)), undefined),
    remove: (key) => attempt((storage) => storage.removeItem(key), undefined),
    keys: () => attempt((storage) => Object.keys(storage), []),
  };
}

/** Shared by all tabs. */
export const local = box(() => localStorage);
/** Of this tab alone. */
export const tab = box(() => sessionStorage);

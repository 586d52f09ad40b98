/** One at a time over all tabs of this browser. */
export type Lock = <T>(name: string, action: () => Promise<T>) => Promise<T>;

const chains = new Map<string, Promise<unknown>>();

/** Web Locks exist on secure origins only; elsewhere one tab at least agrees with itself. */
export const lock: Lock = (name, action) => {
  if (navigator.locks) return navigator.locks.request(name, action);
  const turn = (chains.get(name) ?? Promise.resolve()).then(action, action);
  const settled = turn.catch(() => undefined);
  chains.set(name, settled);
  void settled.then(() => {
    if (chains.get(name) === settled) chains.delete(name);
  });
  return turn;
};

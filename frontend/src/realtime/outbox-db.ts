import { openDB, type DBSchema, type IDBPDatabase } from 'idb';
import type { OutboxStore, Pending } from './outbox';

interface Schema extends DBSchema {
  outbox: { key: string; value: Pending; indexes: { user: number } };
}

let opened: Promise<IDBPDatabase<Schema>> | undefined;

function database(): Promise<IDBPDatabase<Schema>> {
  opened ??= openDB<Schema>('starling', 1, {
    upgrade(db) {
      db.createObjectStore('outbox', { keyPath: 'clientId' }).createIndex('user', 'userId');
    },
    terminated() {
      opened = undefined;
    },
  });
  return opened;
}

/** The outbox of this browser, shared by its tabs. */
export const outboxDb: OutboxStore = {
  list: async (userId) => (await database()).getAllFromIndex('outbox', 'user', userId),
  put: async (pending) => void await (await database()).put('outbox', pending),
  remove: async (clientId) => (await database()).delete('outbox', clientId),
  clear: async (userId) => {
    const transaction = (await database()).transaction('outbox', 'readwrite');
    const keys = await transaction.store.index('user').getAllKeys(userId);
    await Promise.all([...keys.map((key) => transaction.store.delete(key)), transaction.done]);
  },
};

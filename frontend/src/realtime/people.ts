/** Names and pictures of people, as they become known. */
import type { Api } from '@/lib/api';
import { Store } from '@/lib/store';
import type { Member, User } from '@/protocol';

export interface Person {
  id: number;
  username: string;
  displayName: string;
  avatarUrl: string | null;
}

/** As many ids as one call takes. */
const BATCH = 200;
const GATHER_MS = 20;

export class People extends Store<ReadonlyMap<number, Person>> {
  #api: Pick<Api, 'users'>;
  #wanted = new Set<number>();
  #asked = new Set<number>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(api: Pick<Api, 'users'>) {
    super(new Map());
    this.#api = api;
  }

  learn(people: readonly (User | Member)[]): void {
    const next = new Map(this.get());
    for (const one of people) {
      const id = 'userId' in one ? one.userId : one.id;
      const { username, displayName, avatarUrl } = one;
      const held = next.get(id);
      if (held && held.displayName === displayName && held.avatarUrl === avatarUrl && held.username === username) continue;
      next.set(id, { id, username, displayName, avatarUrl });
    }
    if (next.size !== this.get().size || [...next].some(([id, one]) => this.get().get(id) !== one)) this.set(next);
  }

  /** Asks for somebody of whom nothing is known; those asked for together share a call. */
  want(id: number): void {
    if (this.get().has(id) || this.#asked.has(id)) return;
    this.#asked.add(id);
    this.#wanted.add(id);
    this.#soon();
  }

  #soon(): void {
    if (this.#timer === undefined) this.#timer = setTimeout(() => void this.#fetch(), GATHER_MS);
  }

  async #fetch(): Promise<void> {
    this.#timer = undefined;
    const ids = [...this.#wanted].slice(0, BATCH);
    if (ids.length === 0) return;
    for (const id of ids) this.#wanted.delete(id);
    try {
      this.learn(await this.#api.users(ids));
    } catch {
      for (const id of ids) this.#asked.delete(id);
    }
    if (this.#wanted.size > 0) this.#soon();
  }
}

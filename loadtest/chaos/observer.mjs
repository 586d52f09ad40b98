// A connection to one instance that asks who is there: one by itself, so that no answer waits behind other events.

import { io } from './deps.mjs';

export class Observer {
  constructor({ url, name }, user) {
    this.at = name;
    this.user = user;
    this.instance = undefined;
    this.socket = io(url, {
      forceNew: true,
      transports: ['websocket'],
      auth: { token: user.token },
      timeout: 4_000,
      reconnectionDelay: 100,
      reconnectionDelayMax: 1_000,
    });
    this.socket.on('session:ready', ({ instance }) => { this.instance = instance; });
    this.socket.on('disconnect', () => { this.instance = undefined; });
    // Nobody watches others' messages here.
    this.socket.on('messages:offline', (_, acknowledge) => acknowledge?.());
  }

  get online() {
    return this.socket.connected && this.instance !== undefined;
  }

  /** `[{userId, status}]`; nothing without an answer. */
  async presence(userIds) {
    if (!this.online) return undefined;
    try {
      return (await this.socket.timeout(10_000).emitWithAck('presence:query', { userIds })).presence;
    } catch {
      return undefined;
    }
  }

  close() {
    this.socket.disconnect();
  }
}

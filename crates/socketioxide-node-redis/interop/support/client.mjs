// A client of one server, which writes down all that it receives.

import { once } from 'node:events';
import { io } from 'socket.io-client';
import { until, within } from './wait.mjs';

/** Events that clients answer, and how. */
const ANSWERS = {
  ask: (name, args) => [{ from: name, args }, 'the second is not passed on'],
  askBinary: (name) => [{ from: name, bytes: Buffer.from(`bytes of ${name}`) }],
  askNothing: () => [],
  askNumber: () => [1.5],
};

export class Client {
  static async connect(peer, name, { nsp = '/', silent = false, ...options } = {}) {
    const client = new Client();
    Object.assign(client, { peer, name, nsp, received: [], disconnected: undefined });
    client.socket = io(peer.url + nsp, {
      transports: ['websocket'], forceNew: true, reconnection: false, auth: { name }, query: { name }, ...options,
    });
    client.socket.onAny((event, ...args) => {
      const ack = typeof args.at(-1) === 'function' ? args.pop() : undefined;
      client.received.push([event, ...args]);
      if (ack && !silent && ANSWERS[event]) ack(...ANSWERS[event](name, args));
    });
    client.socket.on('disconnect', (reason) => { client.disconnected = reason; });
    const refused = new Promise((_, reject) => { client.socket.once('connect_error', reject); });
    await within(Promise.race([once(client.socket, 'connect'), refused]), `${name} connects`);
    client.id = client.socket.id;
    return client;
  }

  /** Has the server do something. */
  async do(op, fields = {}) {
    const { result, error } = await within(this.socket.emitWithAck('do', { op, ...fields }), () => `${this.name}: ${op}`);
    if (error !== undefined) throw new Error(`${op}: ${error}`);
    return result;
  }

  /** All that came since the last time, once an event of this name came. */
  async upTo(event) {
    await until(() => this.received.some(([name]) => name === event), `${this.name} receives ${event}`);
    const end = this.received.findIndex(([name]) => name === event);
    return this.received.splice(0, end + 1).slice(0, -1);
  }

  close() {
    this.socket.disconnect();
  }
}

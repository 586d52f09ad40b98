// The fault suite's people in a cluster behind NGINX: over every transport, on whichever instance they get.

import { readFileSync } from 'node:fs';
import { databasePool, until } from '../../loadtest/chaos/deps.mjs';
import { faultLog } from '../../loadtest/chaos/faults.mjs';
import { watchWatermarks } from '../../loadtest/chaos/final.mjs';
import { History, now } from '../../loadtest/chaos/history.mjs';
import { People, devicesOf, observersOf } from '../../loadtest/chaos/people.mjs';
import { watchEnd } from '../../loadtest/chaos/presence.mjs';
import { quieten, verdict } from '../../loadtest/chaos/verdict.mjs';

export const TRANSPORTS = [['websocket'], ['polling'], ['polling', 'websocket']];
const began = new Date();

export class Crowd {
  #stopping = new AbortController();
  #watching;

  /**
   * The users of a tokens file (`Cluster.seed`), each with a device, those at the places in `double` with two.
   * `observed` has somebody on each instance who watches who is there; `more` goes to each device.
   */
  static async gather(cluster, tokens, { history = new History(), double, observed = false, more } = {}) {
    const lines = readFileSync(tokens, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    const users = lines.map(({ userId, token }) => ({ id: userId, token }));
    const rooms = [...new Set(lines.flatMap(({ roomIds }) => roomIds))].map((id) => ({
      id, members: lines.filter(({ roomIds }) => roomIds.includes(id)).map(({ userId }) => userId),
    }));
    const devices = devicesOf({ users, rooms, urls: [cluster.url], history, seed: 1, double, transports: TRANSPORTS, more });
    const observers = observed ? await observersOf(cluster.instances, cluster.url, users) : [];
    const crowd = new Crowd(cluster, history, new People(users, rooms, devices, observers));
    try {
      await crowd.people.connect();
    } catch (error) {
      await crowd.close();
      throw error;
    }
    return crowd;
  }

  constructor(cluster, history, people) {
    const pool = databasePool(cluster.postgres.url);
    Object.assign(this, { cluster, history, people, pool });
    this.fault = faultLog(history, (ms) => cluster.recovered(ms));
    this.#watching = watchWatermarks(this, this.#stopping.signal);
  }

  get devices() {
    return this.people.devices;
  }

  /** Messages that are acknowledged. */
  get acknowledged() {
    return new Set(this.history.records.filter(({ kind, ok }) => kind === 'ack' && ok).map(({ id }) => id)).size;
  }

  /** Traffic flows: so many messages are acknowledged from now on, over every transport. */
  async flows(messages) {
    const from = this.history.records.length;
    const transports = new Map(this.devices.map((device) => [device.name, device.transports]));
    await until(() => {
      const acks = this.history.records.slice(from).filter(({ kind, ok }) => kind === 'ack' && ok);
      return acks.length >= messages && new Set(acks.map(({ device }) => transports.get(device))).size === TRANSPORTS.length;
    }, { ms: 30_000, every: 50, what: `${messages} more acknowledgements over every transport` });
  }

  /** Nobody says anything more, and everything said is acknowledged. */
  async hush() {
    this.people.hush();
    await until(() => this.people.waiting === 0, { ms: 60_000, what: 'acknowledgements' });
  }

  /** An instance is told to end. */
  async drain(instance) {
    const since = now();
    const exit = await instance.stop('SIGTERM');
    this.history.write('drained', { id: instance.name, ...exit, ms: Math.round(now() - since) });
  }

  /** Everybody falls silent and gets everything. */
  async quieten() {
    await quieten(this);
  }

  /** The checker's verdict and a report: `verdict` of the fault suite. */
  async verdict(facts) {
    const since = now();
    await Promise.all([this.quieten(), this.people.observers.length > 0 && watchEnd(this, since)]);
    this.#stopping.abort();
    await this.#watching;
    return verdict(this, { seconds: (new Date() - began) / 1_000, ...facts });
  }

  async close() {
    this.#stopping.abort();
    this.people.close();
    await this.#watching;
    await this.pool.end();
    await this.history.close();
  }
}

// Users, their devices, the rooms that they share, and how much they have to say.

import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { register, until } from './deps.mjs';
import { Member } from './member.mjs';
import { Observer } from './observer.mjs';
import { randomOf } from './random.mjs';

const USERS = 22;
/** Users with a second device. */
const DOUBLE = [0, 4];
const TRANSPORTS = [['polling', 'websocket'], ['websocket'], ['polling', 'websocket'], ['polling']];
const range = (from, to, step = 1) => Array.from({ length: Math.ceil((to - from) / step) }, (_, i) => from + i * step);
/** By the numbers of their users; those of two are direct. Everybody is in one at least. */
const ROOMS = [[0, 1], [2, 3], range(0, 12), range(8, 16), range(14, 22), [4, 6, 8, 10, 14, 18]];

export async function gather(cluster, history, seed) {
  const urls = cluster.urls;
  const users = await Promise.all(range(0, USERS).map((i) => register(urls[i % urls.length])));
  const rooms = [];
  for (const members of ROOMS) {
    const [owner, ...others] = members.map((i) => users[i]);
    const memberIds = others.map(({ id }) => id);
    const wanted = members.length === 2 ? { roomType: 'direct', memberIds } : { roomType: 'group', name: `Room ${rooms.length + 1}`, memberIds };
    const { status, body } = await owner.api.post('/rooms', wanted);
    if (status !== 201) throw new Error(`a room was refused: ${JSON.stringify(body)}`);
    rooms.push({ id: body.room.id, members: members.map((i) => users[i].id) });
  }
  const devices = devicesOf({ users, rooms, urls, history, seed, double: DOUBLE, transports: TRANSPORTS });
  return new People(users, rooms, devices, await observersOf(cluster.instances, urls[0], users));
}

/** Somebody who only watches who is there, on each of the instances: shares a silent room with all. */
export async function observersOf(instances, url, users) {
  const watcher = await register(url);
  const lobby = await watcher.api.post('/rooms', { roomType: 'group', name: 'Lobby', memberIds: users.map(({ id }) => id) });
  if (lobby.status !== 201) throw new Error(`the lobby was refused: ${JSON.stringify(lobby.body)}`);
  return instances.map((instance) => new Observer(instance, watcher));
}

/**
 * The devices of users `{id, token}`, which take the transports in turn; those at the places in `double` have two.
 * `rooms` are `{id, members}`; `more` goes to each `Member`.
 */
export function devicesOf({ users, rooms, urls, history, seed, double = [], transports, more = {} }) {
  const devices = [];
  for (const [i, user] of users.entries()) {
    const mine = rooms.filter(({ members }) => members.includes(user.id)).map(({ id }) => id);
    const pair = range(0, double.includes(i) ? 2 : 1).map((device) => {
      const place = devices.length + device;
      return new Member({
        name: `u${i}${device === 0 ? '' : `.${device + 1}`}`,
        user,
        rooms: mine,
        urls,
        history,
        random: randomOf(seed * 1000 + place),
        style: place % 2 === 0 ? 'one' : 'pipelined',
        transports: transports[place % transports.length],
        ...more,
      });
    });
    if (pair.length === 2) {
      pair[0].outbox.twin = pair[1];
      pair[1].outbox.twin = pair[0];
    }
    devices.push(...pair);
  }
  return devices;
}

export class People {
  #talking;

  constructor(users, rooms, devices, observers) {
    Object.assign(this, { users, rooms, devices, observers });
  }

  async connect() {
    this.devices.forEach((device) => device.connect());
    await this.there();
  }

  /** Waits until everybody who is not away is connected. */
  async there(ms = 20_000) {
    const all = () => [...this.devices.filter(({ away }) => !away), ...this.observers];
    await until(() => all().every(({ online, instance }) => online && instance), { ms, what: 'everybody to be connected' });
  }

  /** Everybody says something now and then, so many messages a second in all. */
  talk(rate) {
    const each = rate / this.devices.length;
    this.#talking = this.devices.map((device) => {
      const { random } = device;
      const talker = { timer: undefined };
      const next = () => {
        talker.timer = setTimeout(() => {
          if (!device.away) device.outbox.say(random.pick(device.rooms));
          next();
        }, (-Math.log(1 - random.next()) * 1_000) / each);
      };
      next();
      return talker;
    });
  }

  hush() {
    this.#talking?.forEach(({ timer }) => clearTimeout(timer));
  }

  /** Messages of those who are here that are not acknowledged yet. */
  get waiting() {
    return this.devices.filter(({ away }) => !away).reduce((sum, { outbox }) => sum + outbox.waiting, 0);
  }

  /** Cuts every device again and again, each after 1 to 8 s, until the signal says so. */
  async cutAtRandom(signal, random, only = this.devices) {
    setMaxListeners(0, signal);
    await Promise.all(only.map(async (device) => {
      while (!signal.aborted) {
        await sleep(random.between(1_000, 8_000), undefined, { signal }).catch(() => {});
        if (!signal.aborted && device.online) device.cut();
      }
    }));
  }

  /** Devices on that instance, by its name. */
  on(instance) {
    return this.devices.filter(({ instance: id, online }) => online && id?.startsWith(`${instance.name}-`));
  }

  /** Everybody says what has come, and nothing more. */
  async finish() {
    await Promise.all(this.devices.map(({ receipts }) => receipts.finish()));
  }

  close() {
    this.hush();
    this.devices.forEach((device) => device.close());
    this.observers.forEach((observer) => observer.close());
  }
}

// One server for the tests of a file or of a `describe`, with the people and rooms that they ask for.

import assert from 'node:assert/strict';
import { after, afterEach, before } from 'node:test';
import { api, connect, login, register } from './client.mjs';
import { answered } from './expect.mjs';
import { startServer } from './server.mjs';
import { State } from './state.mjs';

/** Sends are limited to 10 a second per user; tests of other things switch that off. */
export const UNLIMITED = { MESSAGE_RATE_PER_USER: '0' };

/** Starts a server before the tests of the enclosing scope and stops it after them. */
export function useServer(options = { env: UNLIMITED }) {
  const world = new World();
  before(async () => { world.server = await startServer(options); });
  afterEach(() => world.tidy());
  after(async () => {
    world.tidy();
    await world.server?.stop();
  });
  return world;
}

class World {
  #clients = [];
  #turn = 0;

  get url() {
    return this.server.url;
  }

  /** One of several: people and connections are spread over all instances that there are. */
  #any(urls) {
    this.#turn += 1;
    return urls[this.#turn % urls.length];
  }

  get api() {
    return api(this.url);
  }

  person(fields) {
    return register(this.#any(this.server.apiUrls), fields);
  }

  people(count) {
    return Promise.all(Array.from({ length: count }, () => this.person()));
  }

  login(user) {
    return login(this.#any(this.server.apiUrls), user);
  }

  /** `at` names the instance, by its place in `server.all`. */
  async connect(user, { at, ...options } = {}) {
    const url = at === undefined ? this.#any(this.server.urls) : this.server.all[at].url;
    const client = await connect(url, user, options);
    this.#clients.push(client);
    return client;
  }

  connectAll(users, options) {
    return Promise.all(users.map((user) => this.connect(user, options)));
  }

  async group(owner, ...members) {
    const memberIds = members.map((member) => member.id);
    return answered(await owner.api.post('/rooms', { roomType: 'group', name: 'A group', memberIds }), 201).room;
  }

  async direct(one, other) {
    return answered(await one.api.post('/rooms', { roomType: 'direct', memberIds: [other.id] }), 201).room;
  }

  /** People in a group that the first one owns, each connected: `{users, room, clients}`. */
  async conversation(count, options) {
    const users = await this.people(count);
    const room = await this.group(...users);
    return { users, room, clients: await this.connectAll(users, options) };
  }

  /** A model of what each client knows, to be compared with the server by `assertFresh`. */
  async watch(...clients) {
    const states = await Promise.all(clients.map((client) => State.read(client)));
    return { assertFresh: () => Promise.all(states.map((state) => state.assertFresh())) };
  }

  tidy() {
    this.#clients.splice(0).forEach((client) => client.close());
    if (this.server && !this.server.alive && !this.server.expectedExit) {
      this.server.all.forEach(({ log }) => console.error(log));
      assert.fail('the server died; its log is above');
    }
  }
}

/** Sends `count` messages one after the other on one socket; answers them as acknowledged. */
export function sendMany(client, roomId, count, prefix = 'message') {
  return Promise.all(Array.from({ length: count }, (_, i) => client.send(roomId, `${prefix} ${i + 1}`)));
}

export async function roomOf(user, roomId) {
  return answered(await user.api.get(`/rooms/${roomId}`)).room;
}

/** A page of a room's history. */
export async function history(user, roomId, query = 'limit=100') {
  return answered(await user.api.get(`/rooms/${roomId}/messages?${query}`));
}

export async function memberOf(user, roomId, userId) {
  return (await roomOf(user, roomId)).members.find((member) => member.userId === userId);
}

export async function setRole(owner, roomId, user, role) {
  return answered(await owner.api.patch(`/rooms/${roomId}/members/${user.id}`, { role })).room;
}

// A TCP proxy between an instance and one backend, which cuts, stalls, delays and scrambles.
//
// Modes: `pass`; `cut` (what is open is reset, and what is new at once); `stall` (nothing moves, nothing is lost,
// connections stay); `delay` (everything comes later by so many ms, in order); `scramble` (what the backend
// publishes is lost, repeated or swapped; everything else passes).

import { once } from 'node:events';
import net from 'node:net';
import { frameCutter, isBroadcast } from './resp.mjs';

/** What may wait in one direction of one connection before the source is paused. */
const WAITING_MAX = 1 << 20;

export async function startProxy(upstreamPort, { follows = false } = {}) {
  const pairs = new Set();
  const proxy = {
    mode: 'pass',
    delayMs: 0,
    /** Answers `lose`, `repeat`, `hold` or nothing for each broadcast in mode `scramble`. */
    fate: () => undefined,
    /** The backend is a Redis: frames are followed from the first byte on, so that `scramble` finds them. */
    follows,
    scrambled: { lose: 0, repeat: 0, hold: 0 },
  };

  const listener = net.createServer({ pauseOnConnect: true }, (client) => {
    if (proxy.mode === 'cut') return client.resetAndDestroy();
    client.setNoDelay(true);
    const upstream = net.connect(upstreamPort, '127.0.0.1').setNoDelay(true);
    const pair = new Pair(proxy, client, upstream, () => pairs.delete(pair));
    pairs.add(pair);
    return undefined;
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  proxy.port = listener.address().port;

  const set = (mode, more = {}) => {
    Object.assign(proxy, { mode, delayMs: 0 }, more);
    if (mode === 'cut') pairs.forEach((pair) => pair.reset());
    else pairs.forEach((pair) => pair.move());
  };
  return Object.assign(proxy, {
    pass: () => set('pass'),
    cut: () => set('cut'),
    stall: () => set('stall'),
    delay: (delayMs) => set('delay', { delayMs }),
    scramble: (fate) => set('scramble', { fate }),
    async close() {
      pairs.forEach((pair) => pair.reset());
      await new Promise((done) => { listener.close(done); });
    },
  });
}

class Pair {
  constructor(proxy, client, upstream, forget) {
    this.sockets = [client, upstream];
    this.lines = [new Line(proxy, client, upstream), new Line(proxy, upstream, client, new Scrambler(proxy))];
    for (const [from, to] of [[client, upstream], [upstream, client]]) {
      from.on('error', () => {});
      from.on('end', () => {});
      from.on('close', () => {
        to.destroy();
        forget();
      });
    }
    this.move();
  }

  move() {
    this.lines.forEach((line) => line.move());
  }

  reset() {
    this.sockets.forEach((socket) => socket.resetAndDestroy());
  }
}

/** One direction: chunks wait for their time, and for a mode that lets them go. */
class Line {
  #proxy;
  #from;
  #to;
  #scrambler;
  #waiting = [];
  #bytes = 0;
  #last = 0;
  #timer;

  constructor(proxy, from, to, scrambler) {
    this.#proxy = proxy;
    this.#from = from;
    this.#to = to;
    this.#scrambler = scrambler;
    from.on('data', (chunk) => this.#take(chunk));
    to.on('drain', () => this.move());
    to.on('close', () => clearTimeout(this.#timer));
    from.on('close', () => clearTimeout(this.#timer));
  }

  #take(chunk) {
    const out = this.#scrambler ? this.#scrambler.pass(chunk) : chunk;
    if (out.length > 0) {
      // Never before what came earlier, though the delay got shorter.
      this.#last = Math.max(this.#last, performance.now() + this.#proxy.delayMs);
      this.#waiting.push([this.#last, out]);
      this.#bytes += out.length;
    }
    this.move();
  }

  move() {
    clearTimeout(this.#timer);
    const stalled = this.#proxy.mode === 'stall';
    while (!stalled && this.#waiting.length > 0 && !this.#to.writableNeedDrain && !this.#to.destroyed) {
      const wait = this.#waiting[0][0] - performance.now();
      if (this.#proxy.delayMs > 0 && wait > 0.5) {
        this.#timer = setTimeout(() => this.move(), wait);
        break;
      }
      const [, chunk] = this.#waiting.shift();
      this.#bytes -= chunk.length;
      this.#to.write(chunk);
    }
    if (stalled || this.#bytes > WAITING_MAX) this.#from.pause();
    else this.#from.resume();
  }
}

/** Frames of a Redis connection, some of which don't come as they were sent. Follows every frame's bounds. */
class Scrambler {
  #proxy;
  #cut;
  #held = [];

  constructor(proxy) {
    this.#proxy = proxy;
  }

  pass(chunk) {
    if (!this.#proxy.follows) return chunk;
    this.#cut ??= frameCutter();
    const out = [];
    for (const frame of this.#cut(chunk)) {
      const fate = this.#proxy.mode === 'scramble' && isBroadcast(frame) ? this.#proxy.fate() : undefined;
      if (fate) this.#proxy.scrambled[fate] += 1;
      if (fate === 'hold') this.#held.push(frame);
      else if (fate === 'repeat') out.push(frame, frame);
      else if (fate !== 'lose') out.push(frame);
      // What was held comes after the next, in whatever mode.
      if (fate !== 'hold' && this.#held.length > 0) out.push(...this.#held.splice(0));
    }
    return Buffer.concat(out);
  }
}

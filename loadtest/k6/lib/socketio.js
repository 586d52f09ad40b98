// Socket.IO 4 over a WebSocket of k6: as much of it as a chat needs.
//
//   const socket = connect(url, token, {
//     onReady(session) {},              session:ready
//     onEvent(name, payload) {},        any other event; acknowledged when the server asks for it
//     onClose({ refused, reason }) {},  once, however it ends
//   });
//   socket.emit('message:send', payload, (answer) => {});
//   socket.close();

import { WebSocket } from './websocket.js';

/** A server that says nothing for so long is gone: above ping interval + ping timeout. */
const SILENCE_MS = 60_000;
/** From the handshake to `session:ready`. */
const READY_MS = 20_000;

export function connect(url, token, { onReady = () => {}, onEvent = () => {}, onClose = () => {} }) {
  const address = `${url.replace(/^http/, 'ws')}/socket.io/?EIO=4&transport=websocket`;
  const socket = new WebSocket(address);
  const acks = new Map();
  let nextAck = 0;
  let opened = false;
  let closed = false;
  let silence;
  const ready = setTimeout(() => end({ refused: !opened, reason: 'no session:ready' }), READY_MS);

  function end(how) {
    if (closed) return;
    closed = true;
    clearTimeout(ready);
    clearTimeout(silence);
    acks.forEach(({ timer }) => clearTimeout(timer));
    acks.clear();
    // One that failed in the handshake can't be closed.
    if (opened) socket.close();
    onClose(how);
  }

  function heard() {
    clearTimeout(silence);
    silence = setTimeout(() => end({ refused: false, reason: 'silence' }), SILENCE_MS);
  }

  /** `N[…]`: the acknowledgement's number, if any, and the values. */
  function parse(text) {
    const start = text.indexOf('[');
    return [start === 0 ? undefined : Number(text.slice(0, start)), JSON.parse(text.slice(start))];
  }

  function receive(packet) {
    switch (packet[0]) {
      case '0': // Engine.IO open
        socket.send(`40${JSON.stringify({ token })}`);
        return;
      case '2': // ping
        socket.send('3');
        return;
      case '4':
        return receiveMessage(packet[1], packet.slice(2));
      case '1':
        return end({ refused: false, reason: 'transport close' });
      default:
    }
  }

  function receiveMessage(type, body) {
    switch (type) {
      case '0': // CONNECT: `session:ready` follows
        return;
      case '1':
        return end({ refused: false, reason: 'io server disconnect' });
      case '2': {
        const [ack, [name, payload]] = parse(body);
        if (name === 'session:ready') {
          clearTimeout(ready);
          onReady(payload);
        } else {
          onEvent(name, payload);
        }
        if (ack !== undefined) socket.send(`43${ack}[]`);
        return;
      }
      case '3': {
        const [ack, [answer]] = parse(body);
        const waiting = acks.get(ack);
        if (!waiting) return;
        acks.delete(ack);
        clearTimeout(waiting.timer);
        waiting.callback(answer);
        return;
      }
      case '4':
        return end({ refused: true, reason: JSON.parse(body || '{}').message });
      default:
    }
  }

  socket.addEventListener('open', () => {
    opened = true;
    heard();
  });
  socket.addEventListener('message', ({ data }) => {
    if (closed) return;
    heard();
    receive(data);
  });
  socket.addEventListener('error', ({ error }) => end({ refused: !opened, reason: String(error) }));
  socket.addEventListener('close', () => end({ refused: !opened, reason: 'closed' }));

  return {
    /** The callback gets the answer, or undefined after `ms` without one; not after the end. */
    emit(name, payload, callback, ms = 10_000) {
      if (closed) return;
      let ack = '';
      if (callback) {
        ack = nextAck;
        nextAck += 1;
        const timer = setTimeout(() => {
          acks.delete(ack);
          callback(undefined);
        }, ms);
        acks.set(ack, { callback, timer });
      }
      socket.send(`42${ack}${JSON.stringify([name, payload])}`);
    },
    close: () => end({ refused: false, reason: 'here' }),
  };
}

/** What socket.io-client waits before try `n`: 1 s doubled up to 5 s, give or take a half. */
export const backoff = (n) => Math.min(1_000 * 2 ** n, 5_000) * (0.5 + Math.random());

/**
 * The same, but a handshake that is refused is tried again, as socket.io-client does, for `ms` at most. `onRefused`
 * hears of each; `onClose` of the end, once.
 */
export function connectPatiently(url, token, handlers, ms = 60_000) {
  const { onReady = () => {}, onClose = () => {}, onRefused = () => {} } = handlers;
  const first = Date.now();
  let current;
  let over = false;

  function attempt(tries) {
    if (over) return;
    const started = Date.now();
    let came = false;
    current = connect(url, token, {
      ...handlers,
      onReady(session) {
        came = true;
        onReady(session, { readyMs: Date.now() - started, waitMs: Date.now() - first });
      },
      onClose(how) {
        if (came || how.reason === 'unauthorized' || how.reason === 'here' || Date.now() - first > ms) {
          over = true;
          onClose({ ...how, came });
          return;
        }
        onRefused(how);
        setTimeout(() => attempt(tries + 1), backoff(tries));
      },
    });
  }

  attempt(0);
  return {
    emit: (...args) => current.emit(...args),
    close() {
      over = true;
      current.close();
    },
  };
}

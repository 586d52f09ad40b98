// Engine.IO by hand, for frames that no well-behaved client sends.

import { WebSocket } from 'ws';
import { until, within } from './wait.mjs';

/**
 * A bare WebSocket that keeps every frame, and counts pings apart.
 * With `sid` it upgrades a polling session; with `pong: false` it leaves pings unanswered.
 */
export async function openRaw(url, headers = {}, { sid, pong = true } = {}) {
  const query = `EIO=4&transport=websocket${sid ? `&sid=${sid}` : ''}`;
  const socket = new WebSocket(`${url.replace('http', 'ws')}/socket.io/?${query}`, { headers });
  const frames = [];
  const raw = {
    frames,
    pings: 0,
    closed: false,
    send: (frame) => socket.send(frame),
    frame: (matches, ms = 5_000) => until(() => {
      const found = frames.find((frame) => matches(frame));
      if (!found && raw.closed) throw Object.assign(new Error('the connection closed before the frame came'), { final: true });
      return found;
    }, { ms, what: 'a frame' }),
    waitClosed: (ms = 5_000) => until(() => raw.closed, { ms, what: 'the connection to close' }),
    /** Reads nothing any more, and keeps the connection. */
    stopReading: () => socket.pause(),
    close: () => socket.terminate(),
    /** Sends CONNECT and waits until the server has greeted the session. */
    async enter(token) {
      raw.send(`40${JSON.stringify({ token })}`);
      await raw.frame((frame) => frame.startsWith('42["session:ready"'));
    },
    /** Sends an event with an acknowledgement id, from the text of its arguments, and answers the acknowledgement. */
    async ask(id, args) {
      raw.send(`42${id}${args}`);
      const head = `43${id}[`;
      return JSON.parse((await raw.frame((frame) => frame.startsWith(head))).slice(head.length - 1))[0];
    },
  };
  socket.on('message', (data, binary) => {
    const frame = binary ? data : data.toString();
    if (frame === '2') {
      raw.pings += 1;
      if (pong) socket.send('3');
    } else {
      frames.push(frame);
    }
  });
  socket.on('close', () => { raw.closed = true; });
  socket.on('error', () => { raw.closed = true; });
  await within(5_000, 'the WebSocket to open', new Promise((resolve, reject) => {
    socket.once('open', resolve);
    socket.once('error', reject);
    socket.once('unexpected-response', (request, response) => {
      request.destroy();
      reject(Object.assign(new Error(`status ${response.statusCode}`), { status: response.statusCode }));
    });
  }));
  return raw;
}

/** An HTTP request of the polling transport. Without `sid` it is a handshake. */
export async function poll(url, { sid, body, headers = {}, method = body === undefined ? 'GET' : 'POST' } = {}) {
  const query = sid ? `&sid=${sid}` : '';
  const answer = await fetch(`${url}/socket.io/?EIO=4&transport=polling${query}`, {
    method,
    body,
    headers: { connection: 'close', ...(body !== undefined && { 'content-type': 'text/plain;charset=UTF-8' }), ...headers },
    signal: AbortSignal.timeout(15_000),
  });
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
}

/** A polling session that has said CONNECT: `{sid, poll, post}`. */
export async function openPolling(url, headers = {}) {
  const greeting = await poll(url, { headers });
  const { sid } = JSON.parse(greeting.text.slice(1));
  return {
    sid,
    poll: () => poll(url, { sid, headers }),
    post: (body, more) => poll(url, { sid, body, headers: { ...headers, ...more } }),
  };
}

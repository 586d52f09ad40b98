// A proxy before an instance that loses one `message:new` on its way to a client: what no server can notice, and what
// the suite must. For its own test.

import { once } from 'node:events';
import net from 'node:net';

/** Answers `{url, lost, close()}`; loses the `nth` message of each connection by WebSocket. */
export async function startDeafProxy(instanceUrl, nth) {
  const { port } = new URL(instanceUrl);
  const open = new Set();
  const proxy = { lost: 0 };
  const listener = net.createServer((client) => {
    const upstream = net.connect(Number(port), '127.0.0.1');
    const cut = frames();
    let heard = 0;
    for (const [from, to] of [[client, upstream], [upstream, client]]) {
      open.add(from);
      from.on('error', () => {});
      from.on('close', () => { open.delete(from); to.destroy(); });
    }
    client.pipe(upstream);
    upstream.on('data', (chunk) => {
      for (const frame of cut(chunk)) {
        if (frame.includes('42["message:new"')) heard += 1;
        if (heard === nth && frame.includes('42["message:new"')) proxy.lost += 1;
        else client.write(frame);
      }
    });
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  return Object.assign(proxy, {
    url: `http://127.0.0.1:${listener.address().port}`,
    close() {
      open.forEach((socket) => socket.destroy());
      listener.close();
    },
  });
}

/** Cuts what a server sends into the head of its answer and whole WebSocket frames (unmasked). */
function frames() {
  let rest = Buffer.alloc(0);
  let upgraded = false;
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    const whole = [];
    for (;;) {
      const length = upgraded ? frameLength(rest) : rest.indexOf('\r\n\r\n') + 4;
      if (length < 4 && !upgraded) return whole;
      if (length === 0 || length > rest.length) return whole;
      whole.push(rest.subarray(0, length));
      rest = rest.subarray(length);
      upgraded = true;
    }
  };
}

function frameLength(bytes) {
  if (bytes.length < 10) return bytes.length >= 2 && (bytes[1] & 127) <= bytes.length - 2 && (bytes[1] & 127) < 126 ? 2 + (bytes[1] & 127) : 0;
  const short = bytes[1] & 127;
  if (short === 126) return 4 + bytes.readUInt16BE(2);
  if (short === 127) return 10 + Number(bytes.readBigUInt64BE(2));
  return 2 + short;
}

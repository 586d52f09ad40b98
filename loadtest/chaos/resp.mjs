// Where the frames of a Redis connection begin and end (RESP2 and RESP3), and which are broadcasts.

const AGGREGATES = new Set(['*', '%', '~', '>', '|'].map((sign) => sign.charCodeAt(0)));
const BLOBS = new Set(['$', '!', '='].map((sign) => sign.charCodeAt(0)));
const PAIRS = new Set(['%', '|'].map((sign) => sign.charCodeAt(0)));

/** The end of the frame that begins at `at`, or -1 when it is not all there. */
export function frameEnd(bytes, at = 0) {
  const line = bytes.indexOf('\r\n', at);
  if (line < 0) return -1;
  const sign = bytes[at];
  const count = Number(bytes.toString('latin1', at + 1, line));
  let end = line + 2;
  if (BLOBS.has(sign)) {
    if (count >= 0) end += count + 2;
    return end <= bytes.length ? end : -1;
  }
  if (AGGREGATES.has(sign)) {
    let items = Math.max(0, count) * (PAIRS.has(sign) ? 2 : 1);
    // Attributes stand before the frame that they belong to.
    if (sign === '|'.charCodeAt(0)) items += 1;
    for (let i = 0; i < items; i += 1) {
      end = frameEnd(bytes, end);
      if (end < 0) return -1;
    }
  }
  return end;
}

/** Cuts a stream of bytes into whole frames: feed it chunks, it answers frames. */
export function frameCutter() {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const frames = [];
    let at = 0;
    while (at < rest.length) {
      const end = frameEnd(rest, at);
      if (end < 0) break;
      frames.push(rest.subarray(at, end));
      at = end;
    }
    rest = rest.subarray(at);
    return frames;
  };
}

/** Whether a frame brings a published `message:new`. */
export function isBroadcast(frame) {
  const head = frame.toString('latin1', 0, 40);
  return /^[*>]\d+\r\n\$\d+\r\n[ps]?message\r\n/.test(head) && frame.includes('message:new');
}

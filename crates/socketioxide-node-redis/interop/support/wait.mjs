// Waiting for what must happen, with a limit that only a broken run reaches.

const LIMIT = 60_000;

export const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Asks until the answer is truthy, and returns it. */
export async function until(ask, what, limit = LIMIT) {
  const deadline = Date.now() + limit;
  let last;
  for (;;) {
    try {
      last = await ask();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`in vain: ${what} (last: ${last?.stack ?? JSON.stringify(last)})`);
    await pause(5);
  }
}

/** A promise with a limit. */
export async function within(promise, what, limit = LIMIT) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`in vain: ${typeof what === 'function' ? what() : what}`)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

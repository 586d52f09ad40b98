export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * Tries until `condition` answers something true, and answers that.
 * A throw counts as "not yet", unless the error is marked `final`.
 */
export async function until(condition, { ms = 5_000, every = 25, what = 'the condition' } = {}) {
  const end = Date.now() + ms;
  let failure;
  do {
    try {
      const answer = await condition();
      if (answer) return answer;
      failure = undefined;
    } catch (error) {
      if (error.final) throw error;
      failure = error;
    }
    await sleep(every);
  } while (Date.now() < end);
  if (failure) throw failure;
  throw new Error(`waited ${ms} ms for ${what}`);
}

/** Rejects when `promise` takes longer than `ms`. */
export async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// The users of `starling seed --tokens-out FILE`: a JSON line for each, {userId, username, token, roomIds}.

import { SharedArray } from 'k6/data';

export const URL = __ENV.URL || 'http://127.0.0.1:8080';

const file = __ENV.TOKENS;
if (!file) throw new Error('TOKENS is not set: the file that `starling seed --tokens-out` wrote');

export const users = new SharedArray('users', () => open(file).trim().split('\n').map((line) => JSON.parse(line)));

/** A whole number from the environment. */
export function number(name, fallback) {
  const value = Number(__ENV[name] || fallback);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${name} must be a whole number`);
  return value;
}

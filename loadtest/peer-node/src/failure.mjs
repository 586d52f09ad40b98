// What a client may read when something goes wrong: a stable code and a sentence.

export class Failure extends Error {
  constructor(code, message, retryAfterMs) {
    super(message);
    this.code = code;
    if (retryAfterMs !== undefined) this.retryAfterMs = retryAfterMs;
  }

  toJSON() {
    const { code, message, retryAfterMs } = this;
    return { code, message, ...(retryAfterMs !== undefined && { retryAfterMs }) };
  }
}

export const invalid = (field, reason) => new Failure('validation_failed', `${field}: ${reason}.`);
export const forbidden = (message) => new Failure('forbidden', message);
export const notFound = (message) => new Failure('not_found', message);
export const conflict = (message) => new Failure('conflict', message);
export const unavailable = () => new Failure('unavailable', "The service can't do this right now. Try again later.");
export const noRoom = () => notFound('There is no such room, or you are not in it.');
export const noMessage = () => notFound('There is no such message, or you are not in its room.');

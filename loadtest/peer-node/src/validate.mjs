// From whatever a client sent to checked fields, by the contract's limits.

import { invalid } from './failure.mjs';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const MESSAGE_TYPES = ['text', 'image', 'file'];
const CONTENT_CHARACTERS = 4_000;
const METADATA_BYTES = 4_096;
/** Other servers' decoders stop at 128 levels, of which the payload and metadata itself are two. */
const METADATA_DEPTH = 126;
const MAX_ID = 2 ** 31 - 1;

export const isUuid = (value) => typeof value === 'string' && UUID.test(value);
const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);

export function payloadOf(value) {
  if (!isObject(value)) throw invalid('payload', 'must be an object');
  return value;
}

export function id(field, value) {
  if (!Number.isInteger(value) || Math.abs(value) > MAX_ID) throw invalid(field, 'must be an id');
  return value;
}

export function uuid(field, value) {
  if (!isUuid(value)) throw invalid(field, 'must be a UUID');
  return value.toLowerCase();
}

export const optionalUuid = (field, value) => (value === undefined || value === null ? null : uuid(field, value));

/** A list of so many items, each checked by `item(field, value)`. */
export function list(field, value, max, item) {
  if (!Array.isArray(value) || value.length < 1 || value.length > max) {
    throw invalid(field, `must be a list of 1 to ${max} items`);
  }
  return value.map((entry, place) => item(`${field}[${place}]`, entry));
}

export function content(value) {
  if (typeof value !== 'string') throw invalid('content', 'must be a text');
  // A character is a Unicode scalar value: half of a surrogate pair is none.
  const length = value.length > 2 * CONTENT_CHARACTERS ? Infinity : [...value].length;
  if (length < 1 || length > CONTENT_CHARACTERS) throw invalid('content', `must have 1 to ${CONTENT_CHARACTERS} characters`);
  if (!isText(value)) throw invalid('content', 'must be Unicode without U+0000');
  return value;
}

export function messageType(value) {
  const type = value ?? 'text';
  if (!MESSAGE_TYPES.includes(type)) throw invalid('messageType', `must be one of ${MESSAGE_TYPES.join(', ')}`);
  return type;
}

export function metadata(value) {
  if (value === undefined || value === null) return {};
  if (!isObject(value) || !isJson(value, METADATA_DEPTH)) throw invalid('metadata', 'must be an object without U+0000');
  if (Buffer.byteLength(JSON.stringify(value)) > METADATA_BYTES) {
    throw invalid('metadata', `must have at most ${METADATA_BYTES} bytes as JSON`);
  }
  return value;
}

export function afterSeq(field, value) {
  if (!Number.isSafeInteger(value) || value < 0) throw invalid(field, 'must be a whole number from 0');
  return value;
}

const isText = (text) => text.isWellFormed() && !text.includes('\0');

/** Plain JSON that PostgreSQL can store: binary attachments are not. */
function isJson(value, levels) {
  if (typeof value === 'string') return isText(value);
  if (value === null || typeof value === 'number' || typeof value === 'boolean') return true;
  if (levels === 0) return false;
  if (Array.isArray(value)) return value.every((item) => isJson(item, levels - 1));
  const isPlain = typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype;
  return isPlain && Object.entries(value).every(([key, item]) => isText(key) && isJson(item, levels - 1));
}

// What every answer of the contract has in common.

import assert from 'node:assert/strict';

export function answered(response, status = 200) {
  assert.equal(response.status, status, `status ${response.status}: ${JSON.stringify(response.body)}`);
  return response.body;
}

/** Expects the contract's error; `fields` names fields that the reasons must include, whole or in part (`ids[0]`). */
export function refused(response, status, code, fields = []) {
  const { error } = answered(response, status);
  checkError(error, code);
  for (const field of fields) {
    const reasons = Object.entries(error.fields ?? {}).filter(([name]) => name.split(/[.[]/)[0] === field);
    assert.ok(reasons.length > 0, `no reason for ${field}: ${JSON.stringify(error)}`);
    for (const [, reason] of reasons) assert.equal(typeof reason, 'string');
  }
  return error;
}

export function accepted(ack) {
  assert.equal(ack?.ok, true, `refused: ${JSON.stringify(ack)}`);
  return ack;
}

export function refusedAck(ack, code) {
  assert.equal(ack?.ok, false, `expected ${code}: ${JSON.stringify(ack)}`);
  checkError(ack.error, code);
  return ack.error;
}

export function checkError(error, code) {
  const codes = [code].flat();
  assert.ok(codes.includes(error?.code), `expected ${codes.join(' or ')}: ${JSON.stringify(error)}`);
  assert.equal(typeof error.message, 'string');
  if (error.code === 'rate_limited') {
    assert.ok(Number.isInteger(error.retryAfterMs) && error.retryAfterMs > 0, `retryAfterMs: ${error.retryAfterMs}`);
  }
}

const integer = Number.isInteger;
const string = (value) => typeof value === 'string';
const nullable = (check) => (value) => value === null || check(value);
const oneOf = (...values) => (value) => values.includes(value);
const isoTime = (value) => string(value) && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value);
const object = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const list = (check) => (value) => Array.isArray(value) && value.every(check);
const uuidV7 = (value) => string(value) && /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(value);

const USER = {
  id: integer,
  username: string,
  displayName: string,
  avatarUrl: nullable(string),
  lastSeen: nullable(isoTime),
  createdAt: isoTime,
};
const MEMBER = {
  userId: integer,
  username: string,
  displayName: string,
  avatarUrl: nullable(string),
  role: oneOf('owner', 'admin', 'member'),
  joinedAt: isoTime,
  lastReadSeq: integer,
  lastDeliveredSeq: integer,
};
const MESSAGE = {
  id: uuidV7,
  roomId: integer,
  senderId: integer,
  seq: integer,
  content: string,
  messageType: oneOf('text', 'image', 'file', 'system'),
  createdAt: isoTime,
  editedAt: nullable(isoTime),
  deletedAt: nullable(isoTime),
  clientId: nullable(string),
  replyTo: nullable(string),
  metadata: object,
  reactions: list((reaction) => string(reaction.emoji) && list(integer)(reaction.userIds)),
};
const ROOM = {
  id: integer,
  name: nullable(string),
  roomType: oneOf('direct', 'group'),
  createdBy: integer,
  createdAt: isoTime,
  lastSeq: integer,
  unreadCount: integer,
  lastMessage: nullable(object),
};
const RECEIPTS = { recipients: integer, delivered: integer, read: integer };

function checkShape(value, shape, name) {
  assert.ok(object(value), `${name}: ${JSON.stringify(value)}`);
  for (const [field, check] of Object.entries(shape)) {
    assert.ok(field in value && check(value[field]), `${name}.${field}: ${JSON.stringify(value[field])}`);
  }
  return value;
}

export const checkMember = (member) => checkShape(member, MEMBER, 'Member');

export function checkUser(user, { own = false } = {}) {
  checkShape(user, USER, 'User');
  assert.equal('email' in user, own, own ? 'one sees the own e-mail' : 'nobody sees the e-mail of others');
  return user;
}

/** `reader` is the id of the user whom the message was answered to; without one it is a broadcast. */
export function checkMessage(message, reader) {
  checkShape(message, MESSAGE, 'Message');
  if (reader === message.senderId) checkShape(message.receipts, RECEIPTS, 'receipts');
  else if (reader !== undefined) assert.ok(!('receipts' in message), "receipts of others' messages stay hidden");
  return message;
}

export function checkRoom(room, reader) {
  checkShape(room, ROOM, 'Room');
  if (room.lastMessage) checkMessage(room.lastMessage, reader);
  room.members?.forEach(checkMember);
  return room;
}

export const isTime = isoTime;

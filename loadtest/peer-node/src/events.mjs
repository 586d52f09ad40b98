// One socket: its set-up, its events in the order in which they came, and their answers.

import { sessionUser } from './auth.mjs';
import { Failure, invalid, unavailable } from './failure.mjs';
import { OfflineDelivery } from './offline.mjs';
import { sessionRoom } from './rooms.mjs';
import * as check from './validate.mjs';

/** Events of one socket that may wait; a client that floods is told `unavailable` beyond. */
const WAITING = 1_000;

/** Each answers the acknowledgement without `ok`. */
const HANDLERS = {
  async 'message:send'({ chat, socket }, payload) {
    // Counted first: nonsense is no way round the limit.
    await chat.takeSend(socket.data.userId);
    return chat.messages.send(socket.data, check.payloadOf(payload));
  },
  async 'message:edit'({ chat, socket }, payload) {
    return chat.messages.edit(socket.data, check.payloadOf(payload));
  },
  async 'message:delete'({ chat, socket }, payload) {
    return chat.messages.remove(socket.data, check.payloadOf(payload));
  },
  async 'message:delivered'({ chat, socket, offline }, payload) {
    const { roomId, messageIds } = await chat.receipts.delivered(socket.data, check.payloadOf(payload));
    offline.acknowledge(roomId, messageIds);
    return {};
  },
  async 'message:read'({ chat, socket, offline }, payload) {
    return chat.receipts.read(socket, check.payloadOf(payload), (roomId) => offline.held(roomId));
  },
  async 'typing:start'(connection, payload) {
    connection.chat.typing.started(connection.socket.data.userId, await typedRoom(connection, payload));
    return {};
  },
  async 'typing:stop'(connection, payload) {
    connection.chat.typing.stopped(connection.socket.data.userId, await typedRoom(connection, payload));
    return {};
  },
  async 'room:sync'({ chat, socket }, payload) {
    return chat.rooms.sync(socket.data, check.payloadOf(payload));
  },
};

async function typedRoom({ chat, socket }, payload) {
  const roomId = check.id('roomId', check.payloadOf(payload).roomId);
  await chat.rooms.requireMember(socket.data.userId, roomId);
  return roomId;
}

export function serveSocket(chat, socket) {
  const connection = { chat, socket };
  let waiting = 0;
  // Listening from the first moment on; events wait for the set-up and for those before them.
  let tail = setUp(connection).catch((error) => {
    if (!socket.connected) return;
    chat.log('a connection could not be set up:', error.message);
    // Closed below Socket.IO, so that the client comes back by itself.
    socket.conn.close();
  });

  socket.onAny((event, ...args) => {
    const acknowledge = typeof args.at(-1) === 'function' ? args.pop() : undefined;
    const answer = (error, body) => reply(connection, event, acknowledge, error, body);
    if (waiting >= WAITING || chat.draining) {
      answer(unavailable());
      return;
    }
    waiting += 1;
    const served = tail
      .then(() => handle(connection, event, args[0]))
      .then((body) => answer(undefined, body), answer)
      .finally(() => {
        waiting -= 1;
        chat.busy.delete(served);
      });
    chat.busy.add(served);
    tail = served;
  });

  socket.on('disconnect', () => {
    // On the way out all rows of this instance go at once.
    if (!chat.draining) tail.then(() => chat.sessions.socketClosed(socket.id));
    chat.typing.socketClosed(socket.data.userId).catch((error) => {
      // It stops by itself after 3 s.
      chat.log('other sockets of a typist could not be asked for:', error.message);
    });
  });
}

async function setUp(connection) {
  const { chat, socket } = connection;
  const rooms = await chat.rooms.enter(socket);
  // It may have ended before the socket was in the session's room, where it would have heard of it.
  if (await sessionUser(chat.db, socket.data) === undefined) {
    const session = chat.io.in(sessionRoom(socket.data.sessionId));
    session.emit('session:revoked', { reason: 'session_ended' });
    session.disconnectSockets();
    // The line above goes through Redis; this socket must not be served until it comes back.
    socket.disconnect();
    return;
  }
  await chat.sessions.socketOpened(socket.data.userId, socket.id);
  connection.offline = new OfflineDelivery(chat, socket, rooms);
  await connection.offline.prepare();
  socket.emit('session:ready', {
    userId: socket.data.userId,
    instance: chat.instance,
    serverTime: new Date().toISOString(),
    rooms,
  });
  connection.offline.run().catch((error) => {
    // Nothing is lost: the client gets the rest with its next connection.
    chat.log('offline delivery:', error.message);
    socket.conn.close();
  });
}

async function handle(connection, event, payload) {
  // The set-up failed, and the socket is about to close.
  if (!connection.offline) throw unavailable();
  if (!Object.hasOwn(HANDLERS, event)) throw invalid('event', 'is not an event that this server knows');
  return HANDLERS[event](connection, payload);
}

function reply({ chat, socket }, event, acknowledge, error, body) {
  if (!error) {
    acknowledge?.({ ok: true, ...body });
    return;
  }
  if (!(error instanceof Failure)) chat.log(`${event}:`, error);
  const failure = (error instanceof Failure ? error : unavailable()).toJSON();
  if (acknowledge) acknowledge({ ok: false, error: failure });
  else socket.emit('error', { event: event.slice(0, 64), ...failure });
}

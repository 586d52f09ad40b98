// `typing:start`, `typing:stop`: at most one start a second goes out, and it stops by itself.

import { chatRoom, userRoom } from './rooms.mjs';

const DEBOUNCE_MS = 1_000;
const STOPS_AFTER_MS = 3_000;

export function createTyping(io) {
  /** `userId:roomId` → `{userId, roomId, isShown, toldAt, timer}`, of who typed within the last seconds. */
  const typists = new Map();

  function tell({ userId, roomId }, isTyping) {
    io.to(chatRoom(roomId)).except(userRoom(userId)).emit('typing:update', { roomId, userId, isTyping });
  }

  function later(typist, ms, action) {
    clearTimeout(typist.timer);
    typist.timer = setTimeout(action, ms);
  }

  function started(userId, roomId) {
    const key = `${userId}:${roomId}`;
    const typist = typists.get(key) ?? { userId, roomId, isShown: false, toldAt: -Infinity };
    typists.set(key, typist);
    const isTold = performance.now() - typist.toldAt >= DEBOUNCE_MS;
    if (isTold) {
      typist.isShown = true;
      typist.toldAt = performance.now();
      tell(typist, true);
    }
    // A start that is swallowed after a stop shows nothing, so nothing has to stop.
    if (typist.isShown) later(typist, STOPS_AFTER_MS, () => stopped(userId, roomId));
  }

  function stopped(userId, roomId) {
    const key = `${userId}:${roomId}`;
    const typist = typists.get(key);
    if (!typist?.isShown) return;
    typist.isShown = false;
    tell(typist, false);
    // Kept for the rest of the second, so that stop and start are no way round the limit.
    const rest = Math.max(0, typist.toldAt + DEBOUNCE_MS - performance.now());
    later(typist, rest, () => typists.delete(key));
  }

  return {
    started,
    stopped,

    /** A socket of the user closed: with the last one, on whatever server, the typing ends. */
    async socketClosed(userId) {
      const shown = [...typists.values()].filter((typist) => typist.userId === userId && typist.isShown);
      if (shown.length === 0) return;
      const sockets = await io.in(userRoom(userId)).fetchSockets();
      if (sockets.length === 0) shown.forEach(({ roomId }) => stopped(userId, roomId));
    },

    close() {
      for (const { timer } of typists.values()) clearTimeout(timer);
      typists.clear();
    },
  };
}

// `user_sessions`: which sockets are open here. Other servers remove rows whose heartbeat stopped.

const HEARTBEAT_MS = 20_000;

export function createSessions(db, instance, log) {
  let timer;
  const failed = (error) => log('user_sessions:', error.message);
  const forgetAll = () => db.query('DELETE FROM user_sessions WHERE server_instance = $1', [instance]);
  const heartbeat = () => db.query('UPDATE user_sessions SET last_heartbeat = now() WHERE server_instance = $1', [instance]);
  return {
    async open() {
      await forgetAll();
      timer = setInterval(() => heartbeat().catch(failed), HEARTBEAT_MS);
    },
    async close() {
      clearInterval(timer);
      await forgetAll().catch(failed);
    },
    socketOpened: (userId, socketId) => db.query(
      `INSERT INTO user_sessions (user_id, socket_id, server_instance, connected_at, last_heartbeat)
       VALUES ($1, $2, $3, now(), now())`,
      [userId, socketId, instance],
    ),
    socketClosed: (socketId) => db.query('DELETE FROM user_sessions WHERE socket_id = $1', [socketId]).catch(failed),
  };
}

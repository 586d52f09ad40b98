// Who connects: an access token that any server of the cluster signed, of a session that still lives.

import jwt from 'jsonwebtoken';
import { isUuid } from './validate.mjs';

/** Middleware: `socket.data = {userId, username, sessionId}`, or `connect_error` with `unauthorized`. */
export function authenticate(db, secret, log) {
  return async (socket, next) => {
    const claims = claimsOf(tokenOf(socket.handshake), secret);
    if (!claims) return next(new Error('unauthorized'));
    try {
      const username = await sessionUser(db, claims);
      if (username === undefined) return next(new Error('unauthorized'));
      socket.data = { ...claims, username };
    } catch (error) {
      log('a session could not be checked:', error.message);
      // A refusal would keep the client away for good; a closed transport lets it try again.
      socket.conn.close();
    }
    return next();
  };
}

/** The username, or undefined when the session has ended. */
export async function sessionUser(db, { userId, sessionId }) {
  const { rows } = await db.query(
    `SELECT u.username
     FROM login_sessions s
     JOIN users u ON u.id = s.user_id
     WHERE s.id = $1 AND s.ended_at IS NULL AND u.id = $2`,
    [sessionId, userId],
  );
  return rows[0]?.username;
}

function tokenOf({ auth, headers }) {
  if (auth?.token !== undefined) return auth.token;
  return /^Bearer +(\S+)\s*$/i.exec(headers.authorization ?? '')?.[1];
}

function claimsOf(token, secret) {
  if (typeof token !== 'string') return undefined;
  try {
    const { sub, sid, exp } = jwt.verify(token, secret, { algorithms: ['HS256'] });
    if (!/^\d{1,10}$/.test(sub) || !isUuid(sid) || exp === undefined) return undefined;
    return { userId: Number(sub), sessionId: sid.toLowerCase() };
  } catch {
    return undefined;
  }
}

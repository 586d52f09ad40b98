// The history of a run and what is in PostgreSQL at its end → the promises that were broken. No I/O.
//
// Records (`t` in ms): `connect`, `ready`, `disconnect`, `cut`, `leave`, `stranded` of a device's connections (`conn`);
// `new`, `offline`, `sync`, `sync:required`, `status`, `presence`, `draining` that they heard; `send` and `ack` of
// messages; `say` and `said` of receipts; `fault` (begin, end), `instance`, `drained`, `not-recovered` of the cluster;
// `presence-check`, `sessions-check`, `watermarks` that the suite looked up.
//
// Final state: `rooms` [{id, lastSeq, members}], `messages` [{id, room, seq, sender, clientId, text}],
// `receipts` [{id, user, delivered, read}], `watermarks` [{room, user, delivered, read}],
// `devices` [{name, user, conn, rooms, waiting}] with the connection that is open, or null.

import { checkAcknowledged } from './checks/acknowledged.mjs';
import { checkConnections } from './checks/connections.mjs';
import { checkFaults } from './checks/faults.mjs';
import { checkMembers } from './checks/members.mjs';
import { checkOrder } from './checks/order.mjs';
import { checkPresence } from './checks/presence.mjs';
import { checkReceipts } from './checks/receipts.mjs';
import { modelOf } from './checks/model.mjs';

/** In ms, each with what this machine's own slowness may add. */
export const LIMITS = {
  /** From the time when a message is stored until every connection has it. */
  heal: 30_000 + 5_000,
  presence: 35_000 + 3_000,
  sessions: 35_000 + 3_000,
  /** A request on a connection that stays up is answered. */
  answer: 35_000,
  /** `unavailable` while PostgreSQL is down: nobody answers there, or somebody who says nothing. */
  refusal: { 'postgres-restart': 5_000, 'cut-postgres': 5_000, 'stall-postgres': 16_000 },
  drain: 15_000 + 3_000,
};

/** `[{promise, kind, detail…}]`, empty when all was kept. */
export function check(records, final, limits = LIMITS) {
  const violations = [];
  const model = modelOf(records, final);
  const context = {
    records, final, limits, model,
    violate: (promise, kind, detail) => violations.push({ promise, kind, ...detail }),
  };
  checkAcknowledged(context);
  checkOrder(context);
  checkConnections(context);
  checkMembers(context);
  checkReceipts(context);
  checkPresence(context);
  checkFaults(context);
  return violations;
}

// PostgreSQL: one pool, and transactions on it.

import pg from 'pg';

// bigint: seq and counts stay far below 2^53.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);

export function openDatabase(config, log) {
  const pool = new pg.Pool({
    connectionString: config.databaseUrl,
    application_name: config.instance,
    max: config.databaseConnections,
    idleTimeoutMillis: 30_000,
    // Also the wait for a free connection, when thousands of clients come back at once.
    connectionTimeoutMillis: 10_000,
    statement_timeout: 10_000,
    // A connection that fell silent: the server itself ends a statement before that.
    query_timeout: 12_000,
  });
  pool.on('error', (error) => log('an idle database connection failed:', error.message));
  return {
    pool,
    query: (text, values) => pool.query(text, values),

    /** Runs `work` in a transaction: committed when it returns, undone when it throws. */
    async transaction(work) {
      const client = await pool.connect();
      let broken;
      try {
        await client.query('BEGIN');
        const result = await work(client);
        await client.query('COMMIT');
        return result;
      } catch (error) {
        await client.query('ROLLBACK').catch((failure) => { broken = failure; });
        throw error;
      } finally {
        client.release(broken);
      }
    },
  };
}

/** A time as the contract writes it, or null. The adapter would send a Date as something else. */
export const iso = (date) => date?.toISOString() ?? null;

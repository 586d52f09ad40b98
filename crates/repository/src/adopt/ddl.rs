//! Changing tables that are in use.
//!
//! A statement that waits for a table's exclusive lock makes all who come after
//! wait behind it. So it waits for a moment only, steps back, and tries again.
//!
//! That moment is shorter than PostgreSQL's `deadlock_timeout` (1 s by default):
//! if a server's transaction and ours wait for each other, ours gives up before
//! PostgreSQL looks for somebody to end.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::AdoptError;

/// How long a statement waits for its locks.
const LOCK_WAIT: &str = "400ms";
/// How often it is tried: about two minutes of a table that is never free.
const ATTEMPTS: u32 = 60;
/// Between two tries, this and more each time …
const PAUSE: Duration = Duration::from_millis(100);
/// … up to this, so that servers get on with their work.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whether it failed for a lock that somebody else has, so that the same may
/// succeed a moment later.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    // Lock not available, deadlock, cancelled by a time limit.
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "40P01" | "57014"))
}

/// Counts tries of one thing.
pub(super) struct Patience {
    tries: u32,
}

impl Patience {
    pub fn new() -> Self {
        Self { tries: 0 }
    }

    /// Waits before the next try, or refuses when there were enough.
    pub async fn again(&mut self, what: &str) -> Result<(), AdoptError> {
        self.tries += 1;
        if self.tries >= ATTEMPTS {
            return Err(AdoptError::Refused(format!(
                "{what}: other transactions hold their locks for too long. Look in \
                 pg_stat_activity for the oldest xact_start, end that one, and run this again"
            )));
        }
        tokio::time::sleep((PAUSE * self.tries).min(LONGEST_PAUSE)).await;
        Ok(())
    }
}

/// Begins a transaction whose statements wait only shortly for a lock.
pub(super) async fn begin(
    db: &mut PgConnection,
) -> Result<sqlx::Transaction<'_, sqlx::Postgres>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let limit = format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'");
    sqlx::raw_sql(AssertSqlSafe(limit)).execute(&mut *tx).await?;
    Ok(tx)
}

/// Does something in one transaction with short waits, again until it succeeds.
pub(super) async fn persist<T>(
    db: &mut PgConnection,
    what: &str,
    run: impl AsyncFnMut(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, AdoptError> {
    persist_over(db, what, is_busy, run).await
}

/// The same, with a say in which failures may pass by themselves.
pub(super) async fn persist_over<T>(
    db: &mut PgConnection,
    what: &str,
    passes: impl Fn(&sqlx::Error) -> bool,
    mut run: impl AsyncFnMut(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, AdoptError> {
    let mut patience = Patience::new();
    loop {
        let mut tx = begin(db).await?;
        match run(&mut tx).await {
            Ok(done) => {
                tx.commit().await?;
                return Ok(done);
            }
            Err(error) if passes(&error) => tx.rollback().await?,
            Err(error) => return Err(error.into()),
        }
        patience.again(what).await?;
    }
}

/// Runs statements in one transaction, with short waits, until it succeeds.
/// The SQL is made from the catalogs: `sqlx::query!` can't know it.
pub(super) async fn change(db: &mut PgConnection, what: &str, sql: &str) -> Result<(), AdoptError> {
    let run = async |tx: &mut PgConnection| sqlx::raw_sql(AssertSqlSafe(sql)).execute(tx).await;
    match persist(db, what, run).await {
        Ok(_) => Ok(()),
        Err(AdoptError::Database(error)) => Err(AdoptError::step(what, error)),
        Err(error) => Err(error),
    }
}

/// Runs one statement that blocks nobody and takes as long as it takes:
/// `CREATE INDEX CONCURRENTLY`, `VALIDATE CONSTRAINT`.
pub(super) async fn long(db: &mut PgConnection, what: &str, sql: &str) -> Result<(), AdoptError> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(db)
        .await
        .map(|_| ())
        .map_err(|error| AdoptError::step(what, error))
}

//! The pool of connections.

use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};

use crate::{Error, Result};

/// A free connection comes within this time, or the call fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections beyond the minimum close after this time without use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// PostgreSQL ends a statement after this time.
const STATEMENT_TIMEOUT: &str = "10s";
/// PostgreSQL ends a transaction in which nothing happens for so long. A process that was
/// stopped, or a link that fell silent, in the middle of one holds the locks of its rooms,
/// and whoever sends there waits.
const IDLE_IN_TRANSACTION: &str = "3s";
/// A connection unused for longer is asked whether it lives before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How often the watch asks whether PostgreSQL is there…
const LOOK: Duration = Duration::from_millis(500);
/// …and how long it may take to say so.
const ANSWER: Duration = Duration::from_secs(1);
/// After so many failures in a row it is away: one alone may be bad luck.
const FAILURES: u32 = 2;

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../db/migrations");

/// Where the database is, and how many connections to hold.
#[derive(Clone)]
pub struct PoolSettings {
    /// `postgres://user:password@host:port/database`
    pub url: String,
    /// Connections at most.
    pub max: u32,
    /// Connections kept open.
    pub min: u32,
}

/// All that Starling stores. Cheap to clone: clones share the pool.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) pool: PgPool,
    /// Calls fail at once instead of waiting for a connection that can't be had.
    away: Arc<AtomicBool>,
}

/// A transaction under way.
pub(crate) type Work = Held<Transaction<'static, Postgres>>;

/// A connection of the pool while somebody has it. How long that is goes to
/// `starling_postgres_seconds`: for one statement its round trip, for a transaction all
/// from its beginning to its end.
pub(crate) struct Held<T> {
    connection: T,
    _held: Stopwatch,
}

impl Work {
    pub(crate) async fn commit(self) -> Result<()> {
        Ok(self.connection.commit().await?)
    }

    pub(crate) async fn rollback(self) -> Result<()> {
        Ok(self.connection.rollback().await?)
    }
}

impl<T: Deref<Target = PgConnection>> Deref for Held<T> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl<T: DerefMut<Target = PgConnection>> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

struct Stopwatch(Instant);

impl Drop for Stopwatch {
    fn drop(&mut self) {
        metrics::histogram!("starling_postgres_seconds").record(self.0.elapsed());
    }
}

/// Counts those who ask the pool for a connection, until they have it or give up.
struct Waiting(metrics::Gauge);

impl Waiting {
    fn begin() -> Self {
        let gauge = metrics::gauge!("starling_pool_waiting");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Repository {
    /// A repository whose connections are opened on first use, so this succeeds
    /// while PostgreSQL is down. Call it inside a Tokio runtime.
    ///
    /// # Errors
    /// The URL can't be parsed.
    pub fn connect(settings: &PoolSettings) -> Result<Self> {
        let options = PgConnectOptions::from_str(&settings.url)?
            .application_name("starling")
            // Statements over many rooms look dear to the planner and take milliseconds:
            // compiling them first would take longer.
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT),
                ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
                ("jit", "off"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.max)
            .min_connections(settings.min.min(settings.max))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            // A ping at every use would double the round trips; connections that
            // broke while idle are found here, those that broke in use on return.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self::from_pool(pool))
    }

    /// A repository over a pool made elsewhere, as tests do.
    #[must_use]
    pub fn from_pool(pool: PgPool) -> Self {
        Self { pool, away: Arc::default() }
    }

    /// A connection for one statement or a few; an error at once while PostgreSQL is
    /// known to be away.
    pub(crate) async fn connection(&self) -> Result<Held<PoolConnection<Postgres>>> {
        self.held(self.pool.acquire()).await
    }

    /// Begins a transaction; an error at once while PostgreSQL is known to be away.
    pub(crate) async fn begin(&self) -> Result<Work> {
        self.held(self.pool.begin()).await
    }

    async fn held<T>(
        &self,
        connection: impl Future<Output = std::result::Result<T, sqlx::Error>>,
    ) -> Result<Held<T>> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Error::Away);
        }
        let waiting = Waiting::begin();
        let connection = connection.await?;
        drop(waiting);
        Ok(Held { connection, _held: Stopwatch(Instant::now()) })
    }

    /// Looks for ever whether PostgreSQL answers, over a connection of its own, which
    /// no load on the pool delays. While it does not, calls fail at once: each would
    /// wait in vain, and what waits piles up.
    pub async fn watch(self) {
        let options = self.pool.connect_options();
        let mut own: Option<PgConnection> = None;
        let mut failures = 0;
        loop {
            let asked = tokio::time::timeout(ANSWER, async {
                let mut db = match own.take() {
                    Some(db) => db,
                    None => PgConnection::connect_with(&options).await?,
                };
                db.ping().await?;
                Ok::<_, sqlx::Error>(db)
            });
            if let Ok(Ok(db)) = asked.await {
                own = Some(db);
                failures = 0;
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("PostgreSQL answers again");
                }
            } else {
                failures += 1;
                if failures >= FAILURES && !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!("PostgreSQL does not answer; calls fail at once until it does");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Brings the schema up to date. Several servers may do so at once: one
    /// works, the others wait. Has no time limit.
    ///
    /// # Errors
    /// The database can't be reached, or was migrated by a newer Starling.
    pub async fn migrate(&self) -> Result<()> {
        // Its own connection: the setting must not stay in the pool.
        let mut connection = self.pool.acquire().await?.detach();
        sqlx::query!("SET statement_timeout = 0").execute(&mut connection).await?;
        sqlx::query!("SET idle_in_transaction_session_timeout = 0")
            .execute(&mut connection)
            .await?;
        // Not `run`: its future can't be proven `Send` for a borrowed connection.
        MIGRATIONS.run_direct(None, &mut connection, false).await?;
        connection.close().await?;
        Ok(())
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query!("SELECT 1 AS one").fetch_one(&mut *self.connection().await?).await?;
        Ok(())
    }

    /// Open connections, and how many of them are unused now.
    #[must_use]
    pub fn pool_state(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Closes all connections, after what is under way.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

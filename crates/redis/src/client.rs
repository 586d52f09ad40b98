//! The connection to Redis.
//!
//! - It is made in the background and made again for ever, after 100 ms at first
//!   and 2 s at most.
//! - While it is down, every call fails at once.
//! - A call that gets no answer within its time fails, and for the next second
//!   all calls fail at once: a Redis that hangs costs one wait a second, not one a
//!   message.
//! - What was sent and not answered when a connection broke is not sent again.
//! - A loss is logged once, and so is the return.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::clients::WithOptions;
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, EventInterface, FredResult, LuaInterface};
use fred::prelude::{Builder, Client, Config, ReconnectPolicy};
use fred::types::config::Options;
use fred::types::scripts::Script;
use fred::types::{FromValue, RespVersion, Value};
use tokio::sync::{Notify, broadcast::error::RecvError};

/// Between attempts to connect, at first and at most.
const RECONNECT_FIRST_MS: u32 = 100;
const RECONNECT_MOST_MS: u32 = 2000;
/// A connection that is not made within this time is tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A command without an answer for so long breaks the connection off: its other
/// end may be gone without a word.
const UNRESPONSIVE: Duration = Duration::from_secs(6);
/// The longest that any command waits.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Commands that may wait to be written: some tenths of a second of a full load.
/// Beyond, calls fail at once.
const QUEUE: usize = 16_384;
/// How long calls fail at once after one got no answer.
const PAUSE: Duration = Duration::from_secs(1);

/// `REDIS_URL` can't be used.
#[derive(Debug, thiserror::Error)]
#[error("no address of a Redis: {0}")]
pub struct AddressError(String);

impl From<fred::error::Error> for AddressError {
    fn from(error: fred::error::Error) -> Self {
        Self(error.details().to_owned())
    }
}

/// What an address asks for, as fred wants it: `redis://`, `rediss://` (TLS with
/// the certificates that the system trusts), `redis-cluster://`,
/// `redis-sentinel://`, each with `user:password@` where needed. RESP3; the first
/// connection is retried like any other.
///
/// # Errors
/// The address can't be read. It holds a password, so the error doesn't name it.
pub fn settings(url: &str) -> Result<Config, AddressError> {
    const SCHEMES: [&str; 6] = [
        "redis://",
        "rediss://",
        "redis-cluster://",
        "rediss-cluster://",
        "redis-sentinel://",
        "rediss-sentinel://",
    ];
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Err(AddressError("the scheme is unknown".to_owned()));
    }
    let mut config = Config::from_url(url)?;
    config.version = RespVersion::RESP3;
    config.fail_fast = false;
    Ok(config)
}

/// A client with the bounds of this module, not yet connected.
///
/// # Errors
/// The address can't be read.
pub fn build(url: &str) -> Result<Client, AddressError> {
    let client = Builder::from_config(settings(url)?)
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = QUEUE;
            connection.unresponsive.max_timeout = Some(UNRESPONSIVE);
            connection.tcp.nodelay = Some(true);
        })
        .with_performance_config(|performance| {
            performance.default_command_timeout = COMMAND_TIMEOUT;
        })
        .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_FIRST_MS, RECONNECT_MOST_MS, 2))
        .build()?;
    Ok(client)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Redis is away, hangs, or can't take commands now.
    #[error("Redis does not answer")]
    Away,
    /// Redis answered that it won't, or with something else than expected.
    #[error("Redis refused a command: {0}")]
    Refused(String),
}

impl Trouble {
    /// A key holds something else than this program puts there.
    pub(crate) fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Refused(text) if text.contains("WRONGTYPE"))
    }
}

/// A connection to Redis. Cheap to clone: all share one.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    patient: Arc<Patience>,
    returned: Arc<Notify>,
}

/// Whether calls are worth a try.
struct Patience {
    began: Instant,
    /// Milliseconds from `began` until which calls fail at once; 0 when all is well.
    silent_until: AtomicU64,
}

impl Patience {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// After a pause one call goes first; the others follow when it got an answer.
    fn may_try(&self) -> bool {
        let until = self.silent_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let now = self.now();
        let next = now + PAUSE.as_millis() as u64;
        now >= until
            && self
                .silent_until
                .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn answered(&self) {
        if self.silent_until.load(Ordering::Relaxed) != 0 {
            self.silent_until.store(0, Ordering::Relaxed);
            tracing::info!("Redis answers in time again");
        }
    }

    fn silent(&self) {
        let until = self.now() + PAUSE.as_millis() as u64;
        if self.silent_until.swap(until, Ordering::Relaxed) == 0 {
            metrics::counter!("starling_redis_silences_total").increment(1);
            tracing::warn!("Redis does not answer in time; going on without it");
        }
    }
}

impl Redis {
    /// Begins to connect, and succeeds while Redis is down. Call it inside a Tokio
    /// runtime.
    ///
    /// # Errors
    /// The address can't be read.
    pub fn connect(url: &str) -> Result<Self, AddressError> {
        let client = build(url)?;
        let patient = Patience { began: Instant::now(), silent_until: AtomicU64::new(0) };
        let redis = Self { client, patient: Arc::new(patient), returned: Arc::default() };
        tokio::spawn(watch(redis.clone()));
        tokio::spawn(keep_connected(redis.client.clone()));
        Ok(redis)
    }

    /// Whether Redis answers within the time.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self, within: Duration) -> Result<(), Trouble> {
        if !self.client.is_connected() {
            return Err(Trouble::Away);
        }
        // Past the pause on purpose: the question is how Redis is now.
        let client = self.options(within);
        let ping = self.in_time(within, client.ping::<Value>(None)).await;
        self.judge(ping).map(|_| ())
    }

    /// Returns when a connection was made, also one made since the last call.
    pub(crate) async fn returned(&self) {
        self.returned.notified().await;
    }

    /// Whether the keys of a command must be in one slot.
    pub(crate) fn is_cluster(&self) -> bool {
        self.client.is_clustered()
    }

    /// Runs a script. The keys must be in one slot.
    pub(crate) async fn script<R: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
        within: Duration,
    ) -> Result<R, Trouble> {
        self.begin()?;
        let client = self.options(within);
        let answer = self.in_time(within, async {
            let hash = script.sha1().clone();
            match client.evalsha::<Value, _, _, _>(hash, keys.clone(), args.clone()).await {
                // Redis was restarted, or never saw it: EVAL also makes it known.
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    let text = script.lua().cloned().unwrap_or_default();
                    client.eval(text, keys, args).await
                }
                answer => answer,
            }
        });
        self.judge(answer.await)?.convert().map_err(|error| Trouble::Refused(error.to_string()))
    }

    /// Runs a command.
    pub(crate) async fn call<R: FromValue, F>(
        &self,
        within: Duration,
        command: impl FnOnce(WithOptions<Client>) -> F,
    ) -> Result<R, Trouble>
    where
        F: Future<Output = FredResult<Value>>,
    {
        self.begin()?;
        let answer = self.in_time(within, command(self.options(within)));
        self.judge(answer.await)?.convert().map_err(|error| Trouble::Refused(error.to_string()))
    }

    fn begin(&self) -> Result<(), Trouble> {
        if self.client.is_connected() && self.patient.may_try() {
            Ok(())
        } else {
            Err(Trouble::Away)
        }
    }

    /// fred's own time for a command doesn't cover the wait for a connection.
    async fn in_time(
        &self,
        within: Duration,
        command: impl Future<Output = FredResult<Value>>,
    ) -> FredResult<Value> {
        let began = Instant::now();
        let answer = tokio::time::timeout(within, command)
            .await
            .unwrap_or_else(|_| Err(fred::error::Error::new(ErrorKind::Timeout, "no answer")));
        metrics::histogram!("starling_redis_seconds").record(began.elapsed());
        answer
    }

    fn options(&self, within: Duration) -> WithOptions<Client> {
        self.client.with_options(&Options {
            max_attempts: Some(1),
            timeout: Some(within),
            fail_fast: true,
            ..Options::default()
        })
    }

    fn judge(&self, answer: FredResult<Value>) -> Result<Value, Trouble> {
        match answer {
            Ok(value) => {
                self.patient.answered();
                Ok(value)
            }
            Err(error) => {
                metrics::counter!("starling_redis_errors_total").increment(1);
                match error.kind() {
                    ErrorKind::Timeout => {
                        self.patient.silent();
                        Err(Trouble::Away)
                    }
                    ErrorKind::IO
                    | ErrorKind::Canceled
                    | ErrorKind::Backpressure
                    | ErrorKind::Routing
                    | ErrorKind::Cluster
                    | ErrorKind::Sentinel => Err(Trouble::Away),
                    _ => {
                        self.patient.answered();
                        Err(Trouble::Refused(error.details().to_owned()))
                    }
                }
            }
        }
    }
}

/// fred gives up for good when it thinks that the configuration is at fault, which a
/// Sentinel that doesn't know its master yet looks like.
async fn keep_connected(client: Client) {
    loop {
        match client.connect().await {
            Ok(Err(error)) if !error.is_canceled() => {
                tracing::warn!(%error, "the connection to Redis ended; beginning again");
            }
            _ => return,
        }
        tokio::time::sleep(Duration::from_millis(u64::from(RECONNECT_MOST_MS))).await;
    }
}

/// Logs losses and returns, each once.
async fn watch(redis: Redis) {
    let (mut errors, mut reconnects) = (redis.client.error_rx(), redis.client.reconnect_rx());
    let mut connected = None;
    loop {
        tokio::select! {
            reconnected = reconnects.recv() => match reconnected {
                Err(RecvError::Closed) => return,
                _ => {
                    redis.returned.notify_one();
                    metrics::gauge!("starling_redis_up").set(1.0);
                    if connected != Some(true) {
                        tracing::info!("connected to Redis");
                    }
                    connected = Some(true);
                }
            },
            error = errors.recv() => match error {
                Err(RecvError::Closed) => return,
                Err(RecvError::Lagged(_)) => {}
                Ok((error, _)) => {
                    metrics::gauge!("starling_redis_up").set(0.0);
                    if connected != Some(false) {
                        tracing::warn!(%error, "no connection to Redis; trying until there is one");
                    }
                    connected = Some(false);
                }
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_errors_keep_passwords_to_themselves() {
        for url in [
            "redis://localhost",
            "redis://user:secret@localhost:6380/2",
            "rediss://localhost",
            "redis-cluster://a:7000?node=b:7001",
            "redis-sentinel://a:26379?sentinelServiceName=chat",
        ] {
            assert!(settings(url).is_ok(), "{url}");
        }
        let config = settings("redis://user:secret@localhost:6380/2").unwrap();
        assert_eq!((config.username.as_deref(), config.database), (Some("user"), Some(2)));
        for url in
            ["", "localhost:6379", "http://a", "redis://", "redis://u:secret@h:x", "redis://h/x"]
        {
            let error = settings(url).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn after_a_silence_one_call_a_second_asks_whether_it_is_over() {
        let began = Instant::now();
        let patience = Patience { began, silent_until: AtomicU64::new(0) };
        assert!(patience.may_try() && patience.may_try());
        patience.silent();
        assert!(!patience.may_try());
        // As if the pause were over.
        patience.silent_until.store(1, Ordering::Relaxed);
        let patience = Patience { began: began - PAUSE, ..patience };
        assert!(patience.may_try());
        assert!(!patience.may_try());
        patience.answered();
        assert!(patience.may_try() && patience.may_try());
    }
}

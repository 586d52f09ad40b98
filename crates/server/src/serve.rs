//! The server's life: parts, listener, signals, drain.

use std::cell::Cell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socketioxide_node_redis::{Cluster, FredDriver, Notice, Settings as ClusterSettings};
use socketioxide_wire::{Core, Entry, Settings as WireSettings};
use starling_chat::auth::AuthSettings;
use starling_chat::memory::{MemoryLimits, MemoryPresence, Rates};
use starling_chat::{Auth, Chat, Limits, PresenceStore, RoomCache, Settings};
use starling_protocol::event::{ServerDraining, ServerEvent};
use starling_redis::{PresenceTimes, Redis, RedisCache, RedisLimits, RedisPresence};
use starling_repository::{PoolSettings, Repository};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiState};
use crate::config::{Adapter, Config};
use crate::gateway::Gateway;
use crate::sessions::Sessions;
use crate::telemetry::metrics::{self, Metrics};
use crate::transport::acceptor::{self, Front};
use crate::transport::guard::Guard;
use crate::transport::hub::{Hub, Link};
use crate::transport::{cluster, engine, mend, rust_cluster};

/// How often what the metrics keep of the past is tidied.
const UPKEEP: Duration = Duration::from_secs(20);
/// A cluster that could not be joined is tried again after this.
const REJOIN: Duration = Duration::from_secs(2);
/// The longest delay that a draining server asks its clients for.
const RECONNECT_WITHIN_MS: u64 = 5000;
/// Silence of a polling client that the engine's heartbeat allows, and this more.
const POLL_MARGIN: Duration = Duration::from_secs(10);
/// Transports closed at once while draining, and the pause between.
const SLICE: usize = 200;
const SLICE_PAUSE: Duration = Duration::from_millis(100);
/// After the last of them, before those that are still there are looked at.
const AFTER_SLICES: Duration = Duration::from_millis(20);
/// For how long the drain waits to leave no trace in the database.
const FORGETTING: Duration = Duration::from_secs(2);

/// The tokens and hashes that a configuration asks for.
///
/// # Errors
/// When bcrypt refuses the cost.
pub fn auth(config: &Config) -> anyhow::Result<Auth> {
    Auth::new(AuthSettings {
        jwt_secret: config.jwt_secret.reveal().as_bytes().to_vec(),
        access_ttl: config.access_token_ttl,
        refresh_ttl: config.refresh_token_ttl,
        bcrypt_cost: config.bcrypt_cost,
    })
    .context("the password hash could not be set up")
}

/// The pool that a configuration asks for; it connects when it is used.
///
/// # Errors
/// When the address of the database can't be read.
pub fn repository(config: &Config) -> anyhow::Result<Repository> {
    Repository::connect(&PoolSettings {
        url: config.database_url.clone(),
        max: config.db_max_connections,
        min: config.db_min_connections,
    })
    .context("DATABASE_URL is no address of a PostgreSQL")
}

/// SIGTERM and SIGINT, from when this was made: none is missed in between.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both over from their default, which is to end the process.
    ///
    /// # Errors
    /// When the runtime can't.
    pub fn new() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next of either.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Each connection is a file. The usual soft limit of 1024 is there for programs that
/// use `select`, which this one does not: as many as the system allows are taken.
fn raise_file_limit() {
    let files = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(files).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(files, hard, hard).map(|()| hard) } else { Ok(hard) }
    });
    match raised {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

/// What all instances know, or what one does that is alone.
struct Common {
    presence: Arc<dyn PresenceStore>,
    limits: Arc<dyn Limits>,
    cache: Option<Arc<dyn RoomCache>>,
    redis: Option<Redis>,
}

fn common(config: &Config) -> anyhow::Result<Common> {
    let rates = Rates {
        messages: config.message_rate_per_user,
        connects: config.connect_rate_per_instance,
        connects_from: config.connect_rate_per_ip,
    };
    let Some(url) = &config.redis_url else {
        return Ok(Common {
            presence: Arc::new(MemoryPresence::default()),
            limits: Arc::new(MemoryLimits::new(rates)),
            cache: None,
            redis: None,
        });
    };
    let redis = Redis::connect(url).context("REDIS_URL is no address of a Redis")?;
    let times = PresenceTimes::default();
    Ok(Common {
        presence: Arc::new(RedisPresence::new(redis.clone(), &config.instance_id, times)),
        limits: Arc::new(RedisLimits::start(redis.clone(), &config.instance_id, rates)),
        cache: Some(Arc::new(RedisCache::start(redis.clone()))),
        redis: Some(redis),
    })
}

/// Serves until the first signal, then drains; the second ends it at once.
/// `listening` is called when the address is bound.
///
/// # Errors
/// When the address can't be bound or the configuration can't be used.
pub async fn run(
    config: Config,
    mut signals: Signals,
    listening: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    raise_file_limit();
    let handle = metrics::install()?;
    let repository = repository(&config)?;
    let core = Core::new(WireSettings {
        waiting_bytes: config.socket_buffer_bytes,
        write_timeout: config.write_timeout,
        idle_polling: config.ping_interval + config.ping_timeout + POLL_MARGIN,
        conceal_ids: true,
        flushed: Some(|waited| ::metrics::histogram!("starling_flush_seconds").record(waited)),
    });
    tokio::spawn(repository.clone().watch());
    let hub = Hub::new(core.clone());
    let Common { presence, limits, cache, redis } = common(&config)?;
    let mut chat = Chat::new(
        repository.clone(),
        hub.clone(),
        presence,
        limits.clone(),
        auth(&config)?,
        Settings {
            receipt_rows_max_members: config.receipt_rows_max_members,
            max_rooms_per_user: config.max_rooms_per_user,
        },
    );
    if let Some(cache) = cache {
        chat = chat.with_cache(cache);
    }
    if redis.is_some() {
        let presence = chat.clone();
        tokio::spawn(async move { presence.keep_presence().await });
    }
    let draining = CancellationToken::new();
    let (sessions, keeping) = Sessions::start(repository.clone(), hub.clone(), &config.instance_id);
    let gateway = Gateway::new(&config, chat.clone(), hub.clone(), sessions);
    let cluster = join_cluster(&config, &hub, &repository).await;
    tokio::spawn(upkeep(handle.clone()));
    let metrics = Metrics {
        handle,
        core: core.clone(),
        hub: hub.clone(),
        cluster,
        repository: repository.clone(),
        draining: draining.clone(),
    };
    let metrics = match config.metrics_addr {
        Some(addr) => {
            metrics.serve(addr).await?;
            None
        }
        None => Some(metrics),
    };
    let (engine, _io) = engine::build(&config, core.clone(), hub.clone(), gateway);
    let api = api::router(ApiState {
        chat: chat.clone(),
        metrics,
        redis,
        draining: draining.clone(),
        max_payload_bytes: config.max_payload_bytes,
        auth_rate_per_ip: config.auth_rate_per_ip,
        demo_users: config.demo_users.clone(),
    });
    let guard = Guard {
        cors_origins: config.cors_origins.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        limits,
        draining: draining.clone(),
    };
    // The token may come as a header, and is looked at when the namespace connects.
    let entry = Entry::new(engine, core.clone(), vec![http::header::AUTHORIZATION]);
    let listener = acceptor::bind(config.bind_addr)
        .with_context(|| format!("BIND_ADDR={}: this address can't be bound", config.bind_addr))?;
    let addr = listener.local_addr()?;
    let stop = CancellationToken::new();
    let front = Arc::new(Front { entry, core: core.clone(), api, guard });
    let accepting = tokio::spawn(acceptor::run(listener, front, stop.clone()));
    tracing::info!(%addr, instance = config.instance_id, "listening");

    listening(addr);
    signals.next().await;
    tracing::info!("draining");
    let waits_for = Cell::new("");
    let drained = tokio::time::timeout(config.drain_timeout, async {
        drain(&draining, &hub, &chat, &waits_for).await;
        waits_for.set("the table of open sockets");
        stop.cancel();
        accepting.await.ok();
        keeping.abort();
        keeping.await.ok();
        // What stays there is swept by the others when the lease has run out.
        tokio::time::timeout(FORGETTING, repository.forget_instance(&config.instance_id))
            .await
            .ok();
    });
    tokio::select! {
        done = drained => if done.is_err() {
            let waited_for = waits_for.get();
            tracing::warn!(waited_for, "the drain took too long and was cut off");
        },
        () = signals.next() => tracing::warn!("a second signal: leaving at once"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// Reaches the other instances, if there are to be any. While Redis is away this
/// instance serves alone, and joins when it can.
async fn join_cluster(
    config: &Config,
    hub: &Arc<Hub>,
    repository: &Repository,
) -> Arc<OnceLock<Cluster>> {
    let joined = Arc::new(OnceLock::new());
    let (Some(url), Adapter::Node | Adapter::Socketioxide) = (&config.redis_url, config.adapter)
    else {
        return joined;
    };
    hub.expect_others();
    let (url, adapter) = (url.clone(), config.adapter);
    let (hub, repository, cluster) = (hub.clone(), repository.clone(), joined.clone());
    let first = try_join(&url, adapter, &hub, &cluster).await;
    if let Err(error) = &first {
        tracing::warn!("serving alone until the other instances can be reached: {error:#}");
    }
    tokio::spawn(async move {
        let mut tried = first;
        let notices = loop {
            match tried {
                Ok(notices) => break notices,
                Err(_) => tokio::time::sleep(REJOIN).await,
            }
            tried = try_join(&url, adapter, &hub, &cluster).await;
        };
        tracing::info!("joined the other instances");
        mend::run(hub, repository, notices).await;
    });
    joined
}

async fn try_join(
    url: &str,
    adapter: Adapter,
    hub: &Arc<Hub>,
    joined: &OnceLock<Cluster>,
) -> anyhow::Result<broadcast::Receiver<Notice>> {
    let driver = FredDriver::from_url(url).await.context("REDIS_URL: Redis does not answer")?;
    if adapter == Adapter::Socketioxide {
        return rust_cluster::join(driver, hub).await;
    }
    let cluster = Cluster::new(driver, ClusterSettings::default());
    let notices = cluster.notices();
    cluster::join(&cluster, hub).await?;
    joined.set(cluster).ok();
    Ok(notices)
}

/// Nobody new, everybody told and sent elsewhere, everything taken is stored.
async fn drain(
    draining: &CancellationToken,
    hub: &Hub,
    chat: &Chat,
    waits_for: &Cell<&'static str>,
) {
    draining.cancel();
    let mut told = HashSet::new();
    let mut tell = |links: Vec<Arc<Link>>| {
        for link in &links {
            if told.insert(link.id) {
                let reconnect_in_ms = rand::random_range(0..RECONNECT_WITHIN_MS);
                link.emit(&ServerEvent::ServerDraining(ServerDraining { reconnect_in_ms }));
            }
        }
        links
    };
    let mut links = tell(hub.links());
    waits_for.set("what was taken to be stored");
    chat.drain().await;
    waits_for.set("connections to end");
    // Again, until there are none: who was about to connect when it began comes later.
    // Sockets take themselves out as their connections end.
    while !links.is_empty() {
        for slice in links.chunks(SLICE) {
            // Time to flush the acknowledgements and the notice before the close.
            tokio::time::sleep(SLICE_PAUSE).await;
            slice.iter().for_each(|link| link.end());
        }
        tokio::time::sleep(AFTER_SLICES).await;
        links = tell(hub.links());
    }
}

async fn upkeep(metrics: metrics_exporter_prometheus::PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP);
    loop {
        tick.tick().await;
        metrics.run_upkeep();
    }
}

//! Configuration: environment variables, parsed once into what the program wants.
//!
//! Nothing downstream looks at the environment again. All that is wrong is found in
//! one go and told in full ([`ConfigError`]), before a port is bound.
//!
//! [`VARIABLES`] is the list that `starling --help` prints; a test keeps it equal to
//! what is read here.

use std::{
    fmt,
    net::SocketAddr,
    ops::{Deref, RangeInclusive},
    time::Duration,
};

use ipnet::IpNet;

use crate::api::DemoUser;

/// Requests that one address may make at once to the calls under `AUTH_RATE_PER_IP`
/// before the rate applies: an office behind one address logs in at nine o'clock.
pub const AUTH_RATE_BURST: u32 = 100;

/// The exit code for a configuration that cannot be used.
pub const EXIT_CODE: u8 = 2;

/// Shortest `JWT_SECRET`: an HS256 key should be no shorter than its hash.
const JWT_SECRET_MIN_BYTES: usize = 32;

/// One row of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The name in the environment.
    pub name: &'static str,
    /// What holds when it is unset or empty.
    pub default: &'static str,
    /// What it does, with the unit.
    pub meaning: &'static str,
    /// Never printed, and also read from the file that `<name>_FILE` names.
    pub secret: bool,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, secret: false }
}

const fn secret(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning, secret: true }
}

/// Every variable that the program reads, in the order of the help.
pub const VARIABLES: &[Variable] = &[
    secret(
        "DATABASE_URL",
        "- (`dev` starts its own)",
        "PostgreSQL, as postgres://user:password@host:port/name",
    ),
    secret(
        "REDIS_URL",
        "unset",
        "Redis or Valkey for several instances, as redis://user:password@host:port/0; also rediss://, redis-cluster://, redis-sentinel://; unset: a single instance",
    ),
    variable("BIND_ADDR", "127.0.0.1:3000", "address and port to listen on"),
    variable(
        "INSTANCE_ID",
        "host name and a random suffix",
        "name in logs, metrics and session:ready",
    ),
    secret("JWT_SECRET", "- (`dev` makes one)", "key that signs access tokens, at least 32 bytes"),
    variable(
        "ADAPTER",
        "node with REDIS_URL, memory without",
        "how instances reach each other: node (the channels of Socket.IO's Redis adapter, Node.js servers too), socketioxide (socketioxide-redis, Rust servers only), memory (not at all)",
    ),
    variable("CONNECT_RATE_PER_INSTANCE", "100", "new connections a second in all; 0 = off"),
    variable("CONNECT_RATE_PER_IP", "20", "new connections a second from one address; 0 = off"),
    variable("MESSAGE_RATE_PER_USER", "10", "messages a second from one user; 0 = off"),
    variable(
        "AUTH_RATE_PER_IP",
        "10",
        "logins and registrations a second from one address, after a burst of 100; 0 = off",
    ),
    variable("DB_MAX_CONNECTIONS", "50", "database connections, at most"),
    variable("DB_MIN_CONNECTIONS", "5", "database connections, kept open"),
    variable("RECEIPT_ROWS_MAX_MEMBERS", "64", "in larger rooms receipts are watermarks only"),
    variable("MAX_PAYLOAD_BYTES", "65536", "one frame or polling body, in bytes"),
    variable("DRAIN_TIMEOUT_SECONDS", "25", "from SIGTERM to exit, at most"),
    variable(
        "CORS_ORIGINS",
        "same origin",
        "other origins whose pages may connect, comma-separated",
    ),
    variable(
        "TRUSTED_PROXIES",
        "127.0.0.0/8,::1",
        "whose X-Forwarded-For counts: addresses and networks, comma-separated, or `none`",
    ),
    variable("LOG_FORMAT", "text", "`text` or `json`"),
    variable("RUST_LOG", "info", "what to log, such as `info,starling=debug`"),
    variable(
        "METRICS_ADDR",
        "unset",
        "address and port for /metrics alone; unset: it is served at BIND_ADDR",
    ),
    variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "unset",
        "collector for traces, as http://host:4318 (OTLP over HTTP); unset: none",
    ),
    variable("BCRYPT_COST", "12", "work of a password hash, 4 to 15; below 10 is for tests"),
    variable("ACCESS_TOKEN_TTL_SECONDS", "900", "life of an access token"),
    variable("REFRESH_TOKEN_TTL_DAYS", "30", "life of a refresh token"),
    variable("PING_INTERVAL_MS", "25000", "between two heartbeats"),
    variable("PING_TIMEOUT_MS", "20000", "a client that answers no heartbeat for so long is gone"),
    variable("SOCKET_BUFFER_BYTES", "1048576", "what may wait for one slow client, in bytes"),
    variable("MAX_SOCKETS_PER_USER", "50", "sockets of one user on this instance, at most"),
    variable("MAX_ROOMS_PER_USER", "5000", "rooms that one user may be in, at most"),
    variable("WRITE_TIMEOUT_SECONDS", "30", "a client that takes nothing for so long is dropped"),
];

/// [`VARIABLES`] as lines of text, for the help.
#[must_use]
pub fn variables_help() -> String {
    let mut text = String::from("Environment (an empty value counts as unset):\n");
    for variable in VARIABLES {
        text.push_str(&format!("  {:<26} {}\n", variable.name, variable.meaning));
        text.push_str(&format!("  {:<26}   [default: {}]\n", "", variable.default));
    }
    text.push_str("\nDATABASE_URL, REDIS_URL and JWT_SECRET may come from a file instead: DATABASE_URL_FILE,\nREDIS_URL_FILE and JWT_SECRET_FILE name it.\n");
    text
}

/// A value that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself. Never log it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// How instances reach each other's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Adapter {
    /// Not at all: one instance, everything in memory.
    #[default]
    Memory,
    /// By the channels of Socket.IO's own Redis adapter: Node.js servers too.
    Node,
    /// By socketioxide-redis: Rust servers only.
    Socketioxide,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one object a line.
    Json,
}

impl LogFormat {
    /// Reads `LOG_FORMAT` alone, for commands that need no other setting.
    ///
    /// # Errors
    /// If it is set to something else than `text` or `json`.
    pub fn from_env() -> Result<Self, ConfigError> {
        Reader::read(&environment, Reader::log_format)
    }
}

/// `OTEL_EXPORTER_OTLP_ENDPOINT` alone, for the time before the configuration is read.
///
/// # Errors
/// If it is set to something else than an `http` address.
pub fn otlp_endpoint() -> Result<Option<String>, ConfigError> {
    Reader::read(&environment, Reader::otlp_endpoint)
}

/// Where the database is: all that `migrate` and `seed` need.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// As in [`Config::database_url`].
    pub url: String,
    /// As in [`Config::db_max_connections`].
    pub max_connections: u32,
    /// As in [`Config::db_min_connections`].
    pub min_connections: u32,
}

impl DatabaseConfig {
    /// Reads the environment.
    ///
    /// # Errors
    /// All that is wrong with these variables, at once.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_map(&environment)
    }

    /// Reads variables from anywhere.
    ///
    /// # Errors
    /// All that is wrong with these variables, at once.
    pub fn from_map(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Reader::read(lookup, Reader::database)
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("max_connections", &self.max_connections)
            .field("min_connections", &self.min_connections)
            .finish_non_exhaustive()
    }
}

/// The configuration of the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// PostgreSQL. Holds a password: never printed, not by `Debug` either.
    pub database_url: String,
    /// Redis, for several instances. May hold a password: never printed.
    pub redis_url: Option<String>,
    /// Where to listen.
    pub bind_addr: SocketAddr,
    /// The name of this process.
    pub instance_id: String,
    /// Signs access tokens.
    pub jwt_secret: Secret,
    /// How instances reach each other.
    pub adapter: Adapter,
    /// New connections a second in all; 0 = off.
    pub connect_rate_per_instance: u32,
    /// New connections a second from one address; 0 = off.
    pub connect_rate_per_ip: u32,
    /// Messages a second from one user; 0 = off.
    pub message_rate_per_user: u32,
    /// Logins and registrations a second from one address, after
    /// [`AUTH_RATE_BURST`]; 0 = off.
    pub auth_rate_per_ip: u32,
    /// Database connections, at most.
    pub db_max_connections: u32,
    /// Database connections, kept open; never above the maximum.
    pub db_min_connections: u32,
    /// In larger rooms receipts are watermarks only.
    pub receipt_rows_max_members: i64,
    /// One frame or polling body, in bytes.
    pub max_payload_bytes: usize,
    /// From SIGTERM to exit, at most.
    pub drain_timeout: Duration,
    /// Other origins whose pages may connect, as browsers write them: lower case, no
    /// default port, no slash at the end. Empty: only the server's own.
    pub cors_origins: Vec<String>,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
    /// The form of the log.
    pub log_format: LogFormat,
    /// Where `/metrics` is served, and nowhere else then.
    pub metrics_addr: Option<SocketAddr>,
    /// Work of a password hash. Below 10 it is for tests only.
    pub bcrypt_cost: u32,
    /// Life of an access token.
    pub access_token_ttl: Duration,
    /// Life of a refresh token.
    pub refresh_token_ttl: Duration,
    /// Between two heartbeats.
    pub ping_interval: Duration,
    /// A client that answers no heartbeat for so long is gone.
    pub ping_timeout: Duration,
    /// What may wait for one slow client, in bytes.
    pub socket_buffer_bytes: usize,
    /// A client that takes nothing for so long is dropped.
    pub write_timeout: Duration,
    /// Sockets of one user on this instance, at most.
    pub max_sockets_per_user: usize,
    /// Rooms that one user may be in, at most.
    pub max_rooms_per_user: i64,
    /// Whom the log-in page offers to log in as. Never from a variable: `starling dev` alone
    /// has some.
    pub demo_users: Vec<DemoUser>,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_map(&environment)
    }

    /// Reads variables from anywhere: tests, and `starling dev`, which adds its own.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn from_map(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Reader::read(lookup, Self::parse)
    }

    fn parse(reader: &mut Reader<'_>) -> Option<Self> {
        // Each line reports its own problem, so none may return early: only when all
        // have been read does the first `?` below end it.
        let database = reader.database();
        let redis_url = reader.redis_url();
        let bind_addr = reader.bind_addr();
        let instance_id = reader.instance_id();
        let jwt_secret = reader.jwt_secret();
        // One that is wrong has been told of already.
        let redis = redis_url.is_some()
            || reader.problems.iter().any(|problem| problem.variable == "REDIS_URL");
        let adapter = reader.adapter(redis);
        let connect_rate_per_instance = reader.rate("CONNECT_RATE_PER_INSTANCE", 100);
        let connect_rate_per_ip = reader.rate("CONNECT_RATE_PER_IP", 20);
        let message_rate_per_user = reader.rate("MESSAGE_RATE_PER_USER", 10);
        let auth_rate_per_ip = reader.rate("AUTH_RATE_PER_IP", 10);
        let receipt_rows_max_members =
            reader.whole("RECEIPT_ROWS_MAX_MEMBERS", 64, 0..=1_000_000, "members");
        let max_payload_bytes =
            reader.whole("MAX_PAYLOAD_BYTES", 65_536, 1024..=16 * 1024 * 1024, "bytes");
        let drain_timeout = reader.seconds("DRAIN_TIMEOUT_SECONDS", 25, 0..=3600);
        let cors_origins = reader.cors_origins();
        let trusted_proxies = reader.trusted_proxies();
        let log_format = reader.log_format();
        reader.log_filter();
        let metrics_addr = reader.metrics_addr();
        // Used before there is a configuration: here it is only held to be right.
        reader.otlp_endpoint();
        let bcrypt_cost = reader.whole("BCRYPT_COST", 12, 4..=15, "below 10 for tests only");
        let access_token_ttl = reader.seconds("ACCESS_TOKEN_TTL_SECONDS", 900, 1..=31 * 24 * 3600);
        let refresh_token_days = reader.whole("REFRESH_TOKEN_TTL_DAYS", 30u64, 1..=3650, "days");
        let ping_interval = reader.milliseconds("PING_INTERVAL_MS", 25_000);
        let ping_timeout = reader.milliseconds("PING_TIMEOUT_MS", 20_000);
        let socket_buffer_bytes =
            reader.whole("SOCKET_BUFFER_BYTES", 1 << 20, 4096..=1 << 30, "bytes");
        let write_timeout = reader.seconds("WRITE_TIMEOUT_SECONDS", 30, 1..=3600);
        let max_sockets_per_user = reader.whole("MAX_SOCKETS_PER_USER", 50, 1..=100_000, "sockets");
        let max_rooms_per_user = reader.whole("MAX_ROOMS_PER_USER", 5000, 1..=1_000_000, "rooms");

        let database = database?;
        Some(Self {
            database_url: database.url,
            redis_url,
            bind_addr: bind_addr?,
            instance_id: instance_id?,
            jwt_secret: jwt_secret?,
            adapter: adapter?,
            connect_rate_per_instance: connect_rate_per_instance?,
            connect_rate_per_ip: connect_rate_per_ip?,
            message_rate_per_user: message_rate_per_user?,
            auth_rate_per_ip: auth_rate_per_ip?,
            db_max_connections: database.max_connections,
            db_min_connections: database.min_connections,
            receipt_rows_max_members: receipt_rows_max_members?,
            max_payload_bytes: max_payload_bytes?,
            drain_timeout: drain_timeout?,
            cors_origins,
            trusted_proxies,
            log_format: log_format?,
            metrics_addr: metrics_addr?,
            bcrypt_cost: bcrypt_cost?,
            access_token_ttl: access_token_ttl?,
            refresh_token_ttl: Duration::from_secs(refresh_token_days? * 24 * 3600),
            ping_interval: ping_interval?,
            ping_timeout: ping_timeout?,
            socket_buffer_bytes: socket_buffer_bytes?,
            write_timeout: write_timeout?,
            max_sockets_per_user: max_sockets_per_user?,
            max_rooms_per_user: max_rooms_per_user?,
            demo_users: Vec::new(),
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("bind_addr", &self.bind_addr)
            .field("instance_id", &self.instance_id)
            .field("jwt_secret", &self.jwt_secret)
            .field("adapter", &self.adapter)
            .field("connect_rate_per_instance", &self.connect_rate_per_instance)
            .field("connect_rate_per_ip", &self.connect_rate_per_ip)
            .field("message_rate_per_user", &self.message_rate_per_user)
            .field("auth_rate_per_ip", &self.auth_rate_per_ip)
            .field("db_max_connections", &self.db_max_connections)
            .field("db_min_connections", &self.db_min_connections)
            .field("receipt_rows_max_members", &self.receipt_rows_max_members)
            .field("max_payload_bytes", &self.max_payload_bytes)
            .field("drain_timeout", &self.drain_timeout)
            .field("cors_origins", &self.cors_origins)
            .field("trusted_proxies", &self.trusted_proxies)
            .field("log_format", &self.log_format)
            .field("metrics_addr", &self.metrics_addr)
            .field("bcrypt_cost", &self.bcrypt_cost)
            .field("access_token_ttl", &self.access_token_ttl)
            .field("refresh_token_ttl", &self.refresh_token_ttl)
            .field("ping_interval", &self.ping_interval)
            .field("ping_timeout", &self.ping_timeout)
            .field("socket_buffer_bytes", &self.socket_buffer_bytes)
            .field("write_timeout", &self.write_timeout)
            .field("max_sockets_per_user", &self.max_sockets_per_user)
            .field("max_rooms_per_user", &self.max_rooms_per_user)
            .finish_non_exhaustive()
    }
}

/// One variable that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub variable: String,
    /// What it holds; `<redacted>` for secrets, `None` if it is unset.
    pub value: Option<String>,
    /// What would be right.
    pub wanted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={}: {}", self.variable, value.escape_debug(), self.wanted),
            None => write!(f, "{} is not set: {}", self.variable, self.wanted),
        }
    }
}

/// All that is wrong with the environment; prints one problem a line. The program
/// then exits with [`EXIT_CODE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The process environment. A value that is not UTF-8 reaches the parsers with
/// replacement characters, where it is refused like any other wrong value.
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Reads variables and collects what is wrong with them.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn read<T>(
        lookup: &'a dyn Fn(&str) -> Option<String>,
        parse: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let mut reader = Self { lookup, problems: Vec::new() };
        match parse(&mut reader) {
            Some(value) if reader.problems.is_empty() => Ok(value),
            _ => Err(ConfigError { problems: reader.problems }),
        }
    }

    /// The trimmed value; empty counts as unset, as compose files pass `NAME=` on.
    fn get(&self, name: &str) -> Option<String> {
        let value = (self.lookup)(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn problem(&mut self, variable: &str, value: Option<&str>, wanted: impl Into<String>) {
        self.problems.push(Problem {
            variable: variable.to_owned(),
            value: value.map(ToOwned::to_owned),
            wanted: wanted.into(),
        });
    }

    /// A secret from the variable or from the file that `<name>_FILE` names. The outer
    /// `Err` says that the problem is already told.
    fn secret(&mut self, name: &str) -> Result<Option<String>, ()> {
        let file_variable = format!("{name}_FILE");
        match (self.get(name), self.get(&file_variable)) {
            (Some(_), Some(path)) => {
                self.problem(
                    &file_variable,
                    Some(&path),
                    format!("must be unset while {name} is set"),
                );
                Err(())
            }
            (Some(value), None) => Ok(Some(value)),
            (None, None) => Ok(None),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {
                    self.problem(&file_variable, Some(&path), "must name a file that is not empty");
                    Err(())
                }
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(error) => {
                    self.problem(
                        &file_variable,
                        Some(&path),
                        format!("must name a readable file ({error})"),
                    );
                    Err(())
                }
            },
        }
    }

    fn whole<T>(
        &mut self,
        name: &str,
        default: T,
        range: RangeInclusive<T>,
        unit: &str,
    ) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + fmt::Display,
    {
        let Some(value) = self.get(name) else { return Some(default) };
        match value.parse::<T>() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let (low, high) = (range.start(), range.end());
                self.problem(
                    name,
                    Some(&value),
                    format!("must be a whole number from {low} to {high} ({unit})"),
                );
                None
            }
        }
    }

    fn rate(&mut self, name: &str, default: u32) -> Option<u32> {
        self.whole(name, default, 0..=1_000_000, "a second; 0 = off")
    }

    fn seconds(
        &mut self,
        name: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Option<Duration> {
        self.whole(name, default, range, "seconds").map(Duration::from_secs)
    }

    fn milliseconds(&mut self, name: &str, default: u64) -> Option<Duration> {
        self.whole(name, default, 50..=3_600_000, "milliseconds").map(Duration::from_millis)
    }

    fn database(&mut self) -> Option<DatabaseConfig> {
        let url = self.database_url();
        let max_connections = self.whole("DB_MAX_CONNECTIONS", 50, 1..=10_000, "connections");
        let min_connections = self.whole("DB_MIN_CONNECTIONS", 5, 0..=10_000, "connections");
        let (max_connections, min_connections) = (max_connections?, min_connections?);
        // Whoever asks for fewer than the default minimum means the maximum.
        let min_connections = match self.get("DB_MIN_CONNECTIONS") {
            None => min_connections.min(max_connections),
            Some(value) if min_connections > max_connections => {
                self.problem(
                    "DB_MIN_CONNECTIONS",
                    Some(&value),
                    format!("must not exceed DB_MAX_CONNECTIONS, which is {max_connections}"),
                );
                return None;
            }
            Some(_) => min_connections,
        };
        Some(DatabaseConfig { url: url?, max_connections, min_connections })
    }

    fn database_url(&mut self) -> Option<String> {
        const WANTED: &str =
            "must be a PostgreSQL address such as postgres://user:password@localhost:5432/starling";
        let Some(url) = self.secret("DATABASE_URL").ok()? else {
            self.problem(
                "DATABASE_URL",
                None,
                format!("{WANTED}; for a trial on this machine, `starling dev` brings its own PostgreSQL"),
            );
            return None;
        };
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        if rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace)) {
            return Some(url);
        }
        self.problem("DATABASE_URL", Some("<redacted>"), WANTED);
        None
    }

    fn redis_url(&mut self) -> Option<String> {
        let url = self.secret("REDIS_URL").ok()??;
        match starling_redis::settings(&url) {
            Ok(_) => Some(url),
            Err(_) => {
                self.problem(
                    "REDIS_URL",
                    Some("<redacted>"),
                    "must be a URL such as redis://user:password@host:port/0, rediss://…, redis-cluster://host:port?node=host:port or redis-sentinel://host:port?sentinelServiceName=name",
                );
                None
            }
        }
    }

    fn bind_addr(&mut self) -> Option<SocketAddr> {
        let value = self.get("BIND_ADDR").unwrap_or_else(|| "127.0.0.1:3000".to_owned());
        self.socket_addr("BIND_ADDR", &value)
    }

    /// The outer `None` says that the problem is already told.
    fn metrics_addr(&mut self) -> Option<Option<SocketAddr>> {
        match self.get("METRICS_ADDR") {
            Some(value) => self.socket_addr("METRICS_ADDR", &value).map(Some),
            None => Some(None),
        }
    }

    fn socket_addr(&mut self, name: &str, value: &str) -> Option<SocketAddr> {
        let address = value.parse().ok();
        if address.is_none() {
            self.problem(
                name,
                Some(value),
                "must be an IP address and a port, such as 127.0.0.1:3000, 0.0.0.0:3000 or [::]:3000",
            );
        }
        address
    }

    /// The outer `None` says that the problem is already told.
    fn otlp_endpoint(&mut self) -> Option<Option<String>> {
        let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let Some(value) = self.get(name) else { return Some(None) };
        let uri = value.parse::<http::Uri>().ok();
        if uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some()) {
            return Some(Some(value));
        }
        // It may hold a password.
        self.problem(name, None, "must be http://host:port of a collector near by; no TLS");
        None
    }

    fn instance_id(&mut self) -> Option<String> {
        let Some(value) = self.get("INSTANCE_ID") else { return Some(default_instance_id()) };
        // It becomes a label of metrics and a part of keys.
        if value.len() <= 64 && value.chars().all(is_instance_char) {
            return Some(value);
        }
        self.problem(
            "INSTANCE_ID",
            Some(&value),
            "must be 1 to 64 letters, digits, dots, hyphens and underscores",
        );
        None
    }

    fn jwt_secret(&mut self) -> Option<Secret> {
        let wanted = format!(
            "must be at least {JWT_SECRET_MIN_BYTES} bytes that nobody can guess, such as the output of `openssl rand -base64 48`"
        );
        match self.secret("JWT_SECRET").ok()? {
            Some(value) if value.len() >= JWT_SECRET_MIN_BYTES => Some(Secret::new(value)),
            Some(_) => {
                self.problem("JWT_SECRET", Some("<redacted>"), wanted);
                None
            }
            None => {
                self.problem("JWT_SECRET", None, wanted);
                None
            }
        }
    }

    fn adapter(&mut self, redis: bool) -> Option<Adapter> {
        let value = self.get("ADAPTER");
        let adapter = match value.as_deref() {
            None if redis => Adapter::Node,
            None | Some("memory") => Adapter::Memory,
            Some("node") => Adapter::Node,
            Some("socketioxide") => Adapter::Socketioxide,
            Some(value) => {
                self.problem("ADAPTER", Some(value), "must be node, socketioxide or memory");
                return None;
            }
        };
        if adapter != Adapter::Memory && !redis {
            let wanted = "needs REDIS_URL: instances reach each other over Redis";
            self.problem("ADAPTER", value.as_deref(), wanted);
            return None;
        }
        Some(adapter)
    }

    fn log_format(&mut self) -> Option<LogFormat> {
        match self.get("LOG_FORMAT").as_deref() {
            None | Some("text") => Some(LogFormat::Text),
            Some("json") => Some(LogFormat::Json),
            Some(value) => {
                self.problem("LOG_FORMAT", Some(value), "must be text or json");
                None
            }
        }
    }

    /// Only checks: the log reads it itself, before there is a configuration.
    fn log_filter(&mut self) {
        if let Some(value) = self.get("RUST_LOG")
            && let Err(error) = tracing_subscriber::EnvFilter::try_new(&value)
        {
            self.problem(
                "RUST_LOG",
                Some(&value),
                format!("must be a level (error, warn, info, debug, trace) or a list such as info,starling_server=debug ({error})"),
            );
        }
    }

    /// The parts of a comma-separated list.
    fn list(&self, name: &str) -> Vec<String> {
        let value = self.get(name).unwrap_or_default();
        value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(ToOwned::to_owned)
            .collect()
    }

    fn cors_origins(&mut self) -> Vec<String> {
        let mut origins = Vec::new();
        for part in self.list("CORS_ORIGINS") {
            match origin(&part) {
                Some(origin) if origins.contains(&origin) => {}
                Some(origin) => origins.push(origin),
                None => self.problem(
                    "CORS_ORIGINS",
                    Some(&part),
                    "must be origins such as https://chat.example.com or http://localhost:5173: scheme, host, perhaps a port, no path, no *",
                ),
            }
        }
        origins
    }

    fn trusted_proxies(&mut self) -> Vec<IpNet> {
        let parts = self.list("TRUSTED_PROXIES");
        if parts.is_empty() {
            return loopback();
        }
        if parts == ["none"] {
            return Vec::new();
        }
        let mut networks = Vec::new();
        for part in parts {
            match part.parse::<IpNet>().or_else(|_| part.parse().map(|address: std::net::IpAddr| IpNet::from(address))) {
                Ok(network) => networks.push(network.trunc()),
                Err(_) => self.problem(
                    "TRUSTED_PROXIES",
                    Some(&part),
                    "must be IP addresses and networks such as 10.0.0.0/8,192.0.2.7,fd00::/8, or none",
                ),
            }
        }
        networks
    }
}

fn loopback() -> Vec<IpNet> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let v4 = ipnet::Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).map(IpNet::V4);
    let v6 = ipnet::Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).map(IpNet::V6);
    v4.into_iter().chain(v6).collect()
}

fn is_instance_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// The host name, so that people know where; and a suffix, so that a restarted
/// process is another instance than the one that may have left traces.
fn default_instance_id() -> String {
    let host = nix::sys::utsname::uname()
        .ok()
        .and_then(|name| name.nodename().to_str().map(ToOwned::to_owned))
        .unwrap_or_default();
    let host: String = host.chars().filter(|c| is_instance_char(*c)).take(48).collect();
    let host = if host.is_empty() { "starling" } else { &host };
    format!("{host}-{:06x}", rand::random::<u32>() & 0x00ff_ffff)
}

/// An origin as browsers write it, or `None` if the text is something else.
fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let scheme_is_valid = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !scheme_is_valid {
        return None;
    }
    // The colons of an IPv6 address stand in brackets.
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => {
            (&authority[..colon], Some(&authority[colon + 1..]))
        }
        _ => (authority, None),
    };
    let host_is_valid = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    if !host_is_valid {
        return None;
    }
    let port = match port {
        Some(digits) if digits.chars().all(|c| c.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok()?)
        }
        Some(_) => return None,
        None => None,
    };
    match (scheme, port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => Some(format!("{scheme}://{host}")),
        (_, Some(port)) => Some(format!("{scheme}://{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet};

    use super::*;

    const REQUIRED: &[(&str, &str)] = &[
        ("DATABASE_URL", "postgres://localhost/starling"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
    ];

    fn read(extra: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let all: Vec<_> = extra.iter().chain(REQUIRED).copied().collect();
        Config::from_map(&|name| {
            all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[track_caller]
    fn refused(extra: &[(&str, &str)], line: &str) {
        assert_eq!(read(extra).unwrap_err().to_string(), line);
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = read(&[]).unwrap();
        assert_eq!(config.bind_addr.to_string(), "127.0.0.1:3000");
        assert_eq!(
            (
                config.connect_rate_per_instance,
                config.connect_rate_per_ip,
                config.message_rate_per_user
            ),
            (100, 20, 10)
        );
        assert_eq!((config.db_max_connections, config.db_min_connections), (50, 5));
        assert_eq!(config.receipt_rows_max_members, 64);
        assert_eq!(config.max_payload_bytes, 65_536);
        assert_eq!(config.drain_timeout, Duration::from_secs(25));
        assert_eq!(config.cors_origins, Vec::<String>::new());
        assert_eq!(
            config.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.0/8", "::1/128"]
        );
        assert_eq!(config.log_format, LogFormat::Text);
        assert_eq!(config.bcrypt_cost, 12);
        assert_eq!(config.access_token_ttl, Duration::from_secs(900));
        assert_eq!(config.refresh_token_ttl, Duration::from_secs(30 * 24 * 3600));
        assert_eq!(
            (config.ping_interval, config.ping_timeout),
            (Duration::from_secs(25), Duration::from_secs(20))
        );
        assert_eq!(config.socket_buffer_bytes, 1 << 20);
        assert_eq!(config.write_timeout, Duration::from_secs(30));
        assert_eq!((config.max_sockets_per_user, config.max_rooms_per_user), (50, 5000));
    }

    #[test]
    fn the_reference_lists_exactly_what_is_read() {
        let asked = RefCell::new(BTreeSet::new());
        let _ = Config::from_map(&|name| {
            asked.borrow_mut().insert(name.to_owned());
            None
        });
        let listed: BTreeSet<String> = VARIABLES
            .iter()
            .flat_map(|v| [Some(v.name.to_owned()), v.secret.then(|| format!("{}_FILE", v.name))])
            .flatten()
            .collect();
        assert_eq!(asked.into_inner(), listed);
    }

    #[test]
    fn numeric_defaults_in_the_reference_are_the_real_ones() {
        // A default written out gives the same configuration as leaving it unset.
        let plain = read(&[("INSTANCE_ID", "a")]).unwrap();
        for variable in
            VARIABLES.iter().filter(|v| v.default.starts_with(|c: char| c.is_ascii_digit()))
        {
            let written = read(&[("INSTANCE_ID", "a"), (variable.name, variable.default)]).unwrap();
            assert!(written == plain, "{}", variable.name);
        }
    }

    #[test]
    fn all_problems_are_told_at_once_and_name_variable_value_and_wish() {
        let error = Config::from_map(&|name| match name {
            "CONNECT_RATE_PER_IP" => Some("abc".to_owned()),
            "LOG_FORMAT" => Some("xml".to_owned()),
            "JWT_SECRET" => Some("short-and-secret".to_owned()),
            _ => None,
        })
        .unwrap_err();
        let text = error.to_string();
        assert!(text.contains(
            "CONNECT_RATE_PER_IP=abc: must be a whole number from 0 to 1000000 (a second; 0 = off)"
        ));
        assert!(text.contains("LOG_FORMAT=xml: must be text or json"));
        assert!(text.contains("DATABASE_URL is not set: "));
        assert!(text.contains("JWT_SECRET=<redacted>: must be at least 32 bytes"));
        assert!(!format!("{text}{error:?}").contains("short-and-secret"));
        assert_eq!(error.problems.len(), 4);
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (name, value) in [
            ("CONNECT_RATE_PER_INSTANCE", "-1"),
            ("MESSAGE_RATE_PER_USER", "1000001"),
            ("AUTH_RATE_PER_IP", "1.5"),
            ("DB_MAX_CONNECTIONS", "0"),
            ("RECEIPT_ROWS_MAX_MEMBERS", "many"),
            ("MAX_PAYLOAD_BYTES", "1023"),
            ("MAX_PAYLOAD_BYTES", "16777217"),
            ("DRAIN_TIMEOUT_SECONDS", "25s"),
            ("BCRYPT_COST", "3"),
            ("BCRYPT_COST", "16"),
            ("ACCESS_TOKEN_TTL_SECONDS", "0"),
            ("REFRESH_TOKEN_TTL_DAYS", "0"),
            ("PING_INTERVAL_MS", "0"),
            ("PING_TIMEOUT_MS", "99999999999999999999999"),
            ("SOCKET_BUFFER_BYTES", "1"),
            ("WRITE_TIMEOUT_SECONDS", "0"),
            ("MAX_SOCKETS_PER_USER", "0"),
            ("MAX_ROOMS_PER_USER", "all"),
            ("BIND_ADDR", "localhost"),
            ("INSTANCE_ID", "a b"),
            ("ADAPTER", "node"),
            ("ADAPTER", "socketioxide"),
            ("ADAPTER", "redis"),
            ("REDIS_URL", "localhost:6379"),
            ("REDIS_URL", "http://localhost"),
            ("RUST_LOG", "starling=loud"),
            ("DATABASE_URL", "mysql://localhost/starling"),
            ("DATABASE_URL", "postgres://"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert_eq!(error.problems.len(), 1, "{name}={value}: {error}");
            assert_eq!(error.problems[0].variable, name);
        }
    }

    #[test]
    fn the_pool_keeps_no_more_than_it_may_open() {
        refused(
            &[("DB_MAX_CONNECTIONS", "4"), ("DB_MIN_CONNECTIONS", "5")],
            "DB_MIN_CONNECTIONS=5: must not exceed DB_MAX_CONNECTIONS, which is 4",
        );
        assert_eq!(read(&[("DB_MAX_CONNECTIONS", "2")]).unwrap().db_min_connections, 2);
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let config = read(&[(
            "CORS_ORIGINS",
            "https://Chat.example.com:443, http://localhost:5173,http://[::1]:80 ,capacitor://localhost,http://localhost:5173",
        )])
        .unwrap();
        assert_eq!(
            config.cors_origins,
            [
                "https://chat.example.com",
                "http://localhost:5173",
                "http://[::1]",
                "capacitor://localhost"
            ]
        );
        for wrong in [
            "*",
            "null",
            "example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "https://a?b",
            "https://u@a",
            "https://a:x",
            "https://a:",
            "https://a:70000",
            "https://*.a",
            "https://a:+1",
            "https://[::1",
            "1a://b",
        ] {
            let error = read(&[("CORS_ORIGINS", wrong)]).unwrap_err();
            assert_eq!(error.problems[0].value.as_deref(), Some(wrong));
        }
    }

    #[test]
    fn proxies_are_networks_addresses_or_none() {
        let config = read(&[("TRUSTED_PROXIES", "10.1.2.3/8, 192.0.2.7,fd00::/8")]).unwrap();
        let text: Vec<_> = config.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]);
        assert_eq!(read(&[("TRUSTED_PROXIES", "none")]).unwrap().trusted_proxies, []);
        for wrong in ["10.0.0.0/33", "proxy.example.com", "10.0.0"] {
            assert!(read(&[("TRUSTED_PROXIES", wrong)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_come_from_files_too() {
        let path = std::env::temp_dir().join(format!("starling-config-{}", std::process::id()));
        std::fs::write(&path, "a secret from a file, long enough\n").unwrap();
        let from_file = |name: &str| match name {
            "DATABASE_URL" => Some("postgres://localhost/starling".to_owned()),
            "JWT_SECRET_FILE" => Some(path.display().to_string()),
            _ => None,
        };
        let config = Config::from_map(&from_file).unwrap();
        assert_eq!(config.jwt_secret.reveal(), "a secret from a file, long enough");
        let both = read(&[("JWT_SECRET_FILE", &path.display().to_string())]).unwrap_err();
        assert_eq!(both.problems[0].wanted, "must be unset while JWT_SECRET is set");
        std::fs::remove_file(&path).unwrap();
        let gone = Config::from_map(&from_file).unwrap_err();
        assert!(gone.to_string().starts_with(&format!(
            "JWT_SECRET_FILE={}: must name a readable file",
            path.display()
        )));
        assert_eq!(gone.problems.len(), 1);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let config =
            read(&[("DATABASE_URL", "postgres://starling:hunter2@localhost/starling")]).unwrap();
        let text = format!("{config:?} {:?}", config.jwt_secret);
        assert!(!text.contains("hunter2") && !text.contains("0123456789abcdef"), "{text}");
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        assert_eq!(
            read(&[("BIND_ADDR", ""), ("LOG_FORMAT", " ")]).unwrap().log_format,
            LogFormat::Text
        );
    }

    #[test]
    fn instances_differ_by_default() {
        let (one, two) = (read(&[]).unwrap().instance_id, read(&[]).unwrap().instance_id);
        assert_ne!(one, two);
        assert!(read(&[("INSTANCE_ID", &one)]).is_ok());
    }
}

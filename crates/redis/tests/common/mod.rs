//! A Redis of its own for each test, and a database.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use starling_redis::Redis;
use uuid::Uuid;

/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node tells clients its address, which it does not know before it met another.
const CLUSTER: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"];

/// A `redis-server` on a free port in a new folder; both go when it is dropped.
pub struct Server {
    dir: PathBuf,
    port: u16,
    child: Child,
    args: &'static [&'static str],
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A cluster of one node, which checks that the keys of a script are in one slot.
    pub async fn start_cluster() -> Self {
        let server = Self::start_with(&CLUSTER).await;
        assert_eq!(server.cli(&["cluster", "addslotsrange", "0", "16383"]), "OK");
        until("the cluster is formed", async || {
            server.cli(&["cluster", "info"]).contains("cluster_state:ok")
        })
        .await;
        server
    }

    async fn start_with(args: &'static [&'static str]) -> Self {
        let dir = std::env::temp_dir().join(format!("starling-redis-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&dir).unwrap();
        // Another process may take the port in between: then the next one.
        for _ in 0..10 {
            let port = free_port();
            let child = spawn(&dir, port, args);
            let mut server = Self { child, dir: dir.clone(), port, args };
            if server.answers().await {
                return server;
            }
        }
        panic!("redis-server did not start");
    }

    pub fn url(&self) -> String {
        if !self.args.is_empty() {
            return format!("redis-cluster://127.0.0.1:{}", self.port);
        }
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection that is up.
    pub async fn connect(&self) -> Redis {
        let redis = Redis::connect(&self.url()).unwrap();
        up(&redis).await;
        redis
    }

    /// As after a crash; everything is lost.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Starts it again on the same port, empty.
    pub async fn start_again(&mut self) {
        self.child = spawn(&self.dir, self.port, self.args);
        assert!(self.answers().await, "redis-server did not come back");
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// What `redis-cli` prints.
    pub fn cli(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.cli(&["ping"]) == "PONG" {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn spawn(dir: &PathBuf, port: u16, args: &[&str]) -> Child {
    let port = port.to_string();
    Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(args)
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is missing: script/setup --test installs it")
}

/// Below what the kernel gives to connections that go out: what is free there is not
/// somebody's a moment later, nor when a Redis comes back to it.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(15_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Until the connection is up.
pub async fn up(redis: &Redis) {
    until("Redis answers", async || redis.ping(PATIENCE).await.is_ok()).await;
}

/// Until the condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

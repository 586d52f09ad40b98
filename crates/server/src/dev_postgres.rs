//! A private PostgreSQL for `starling dev`: the system's programs, data of its
//! own, reached over loopback with a password that only the data folder knows.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use starling_repository::{PoolSettings, Repository};

use crate::commands::dev::kept_secret;

/// A server that this process started.
pub struct DevPostgres {
    child: std::process::Child,
    url: String,
    log: PathBuf,
}

impl Drop for DevPostgres {
    fn drop(&mut self) {
        self.signal(Signal::SIGINT);
    }
}

/// The ordinary user that runs PostgreSQL when we are root, which it refuses.
struct Runner {
    uid: u32,
    gid: u32,
}

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

impl DevPostgres {
    /// Starts it, the first time after making its data. It is stopped when this
    /// is dropped; [`Self::stop`] also waits for that.
    ///
    /// # Errors
    /// When the programs are missing or can't be started.
    pub async fn spawn(folder: &Path) -> anyhow::Result<Self> {
        let runner = runner()?;
        let folder = fs::canonicalize(folder)?;
        let home = home(&folder, runner.as_ref())?;
        let data = home.join("data");
        let log = home.join("postgres.log");
        let bin = programs(fs::read_to_string(data.join("PG_VERSION")).ok().as_deref())?;
        let password = kept_secret(&folder.join("postgres-password"))?;
        if !data.join("PG_VERSION").exists() {
            tracing::info!("making a database for the first time");
            make(&bin, &data, &password, runner.as_ref())?;
        }
        if let Some(pid) = running(&data) {
            if has_owner(pid) {
                bail!(
                    "a `starling dev` with this data folder runs already (PostgreSQL {pid}); \
                     stop it, or choose another folder with --data"
                );
            }
            tracing::info!(pid, "stopping the PostgreSQL of a run that was killed");
            kill(Pid::from_raw(pid), Signal::SIGINT).ok();
            let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
            while running(&data).is_some() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
            }
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            // The folder is another user's when we are root: a link in it could
            // make us write anywhere.
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .mode(0o600)
            .open(&log)
            .with_context(|| format!("{} can't be written", log.display()))?;
        let mut command = as_runner(Command::new(bin.join("postgres")), runner.as_ref(), &home);
        command
            .args(["-D".as_ref(), data.as_os_str()])
            .args(["-p", &port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "max_connections=100"])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // Ctrl-C at the terminal is for us alone: we stop it when we are done.
            .process_group(0);
        let child = command.spawn().context("PostgreSQL can't be started")?;
        let url = format!("postgres://starling:{password}@127.0.0.1:{port}/postgres");
        Ok(Self { child, url, log })
    }

    /// Resolves when it answers.
    ///
    /// # Errors
    /// When it doesn't come up; the message holds the end of its log.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        self.wait_until_ready().await.map_err(|error| {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            error.context(format!("PostgreSQL did not start:\n{tail}"))
        })
    }

    /// Where it can be reached.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let settings = PoolSettings { url: self.url.clone(), max: 1, min: 0 };
        let repository = Repository::connect(&settings)?;
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            if repository.ping().await.is_ok() {
                repository.close().await;
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("it did not answer within {} s", START_TIMEOUT.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops it, and waits for it.
    pub async fn stop(mut self) {
        // "Fast": running statements are cut off, nothing committed is lost.
        self.signal(Signal::SIGINT);
        let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
        while tokio::time::Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        tracing::warn!("PostgreSQL did not stop in time and is killed; it recovers when started");
        self.signal(Signal::SIGQUIT);
        self.child.wait().ok();
    }

    fn signal(&mut self, signal: Signal) {
        // A process that ended has given its number back.
        if matches!(self.child.try_wait(), Ok(None))
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            kill(Pid::from_raw(pid), signal).ok();
        }
    }
}

/// The folder of the server's programs: of the version that made the data, if
/// there are data, else the newest.
fn programs(made_by: Option<&str>) -> anyhow::Result<PathBuf> {
    let made_by: Option<u32> = made_by.and_then(|version| version.trim().parse().ok());
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    if let Some(version) = made_by {
        let same = found.iter().position(|(other, _)| *other == version);
        found = same.map(|at| vec![found.swap_remove(at)]).unwrap_or_default();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os("PG_BIN")
        .map(PathBuf::from)
        .into_iter()
        .chain(found.into_iter().rev().map(|(_, bin)| bin))
        .chain(std::env::split_paths(&path))
        .find(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .with_context(|| match made_by {
            Some(version) => format!(
                "the data were made by PostgreSQL {version}, which is not here: install it, set \
                 PG_BIN, or choose another folder with --data"
            ),
            None => "PostgreSQL's server programs are missing: `apt install postgresql`, or set \
                     PG_BIN"
                .to_owned(),
        })
}

fn runner() -> anyhow::Result<Option<Runner>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(Runner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
        }
    }
    bail!("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")
}

fn as_runner(mut command: Command, runner: Option<&Runner>, home: &Path) -> Command {
    if let Some(runner) = runner {
        command.uid(runner.uid).gid(runner.gid);
    }
    command.current_dir(home).env("HOME", home);
    command
}

/// The folder for data and log: in ours, or elsewhere when the user that runs
/// PostgreSQL can't get there (a clone in /root, say).
fn home(folder: &Path, runner: Option<&Runner>) -> anyhow::Result<PathBuf> {
    let mut home = folder.join("postgres");
    if let Some(runner) = runner
        && !folder.ancestors().all(|dir| may_enter(dir, runner))
    {
        let pointer = folder.join("postgres-is-in");
        let known = fs::read_to_string(&pointer).unwrap_or_default();
        home = PathBuf::from(known.trim());
        if !home.is_dir() {
            let id = uuid::Uuid::new_v4().simple();
            home = PathBuf::from(format!("/var/lib/starling-dev/{id}"));
            fs::create_dir_all(&home)?;
            fs::write(pointer, format!("{}\n", home.display()))?;
        }
    }
    fs::create_dir_all(&home)?;
    if let Some(runner) = runner {
        std::os::unix::fs::chown(&home, Some(runner.uid), Some(runner.gid))?;
    }
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700))?;
    Ok(home)
}

fn may_enter(dir: &Path, runner: &Runner) -> bool {
    fs::metadata(dir).is_ok_and(|meta| {
        let mode = meta.mode();
        if meta.uid() == runner.uid {
            mode & 0o100 != 0
        } else if meta.gid() == runner.gid {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        }
    })
}

fn make(bin: &Path, data: &Path, password: &str, runner: Option<&Runner>) -> anyhow::Result<()> {
    let home = data.parent().context("the data folder has no parent")?;
    // Renamed when it is whole: an interrupted first start is begun anew.
    let unfinished = home.join("data.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let file = home.join("initial-password");
    fs::remove_file(&file).ok();
    let mut new = fs::OpenOptions::new();
    new.write(true).create_new(true).mode(0o600).open(&file)?.write_all(password.as_bytes())?;
    if let Some(runner) = runner {
        std::os::unix::fs::chown(&file, Some(runner.uid), Some(runner.gid))?;
    }
    let made = as_runner(Command::new(bin.join("initdb")), runner, home)
        .args(["-D".as_ref(), unfinished.as_os_str()])
        .args(["-U", "starling", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"])
        .arg("--pwfile")
        .arg(&file)
        .output();
    fs::remove_file(&file)?;
    let made = made.context("initdb can't be started")?;
    if !made.status.success() {
        bail!("initdb failed:\n{}", String::from_utf8_lossy(&made.stderr));
    }
    fs::rename(&unfinished, data)?;
    Ok(())
}

/// The server that already runs on this data, if one does. A file left by a
/// crash names a process that is gone, or is another program by now.
fn running(data: &Path) -> Option<i32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    // A server works in its data folder: no other process is mistaken for it.
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (folder == fs::canonicalize(data).ok()?).then_some(pid)
}

/// Whether the `starling` that started a server still lives.
fn has_owner(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.map(str::trim).unwrap_or_default();
    fs::read_to_string(format!("/proc/{parent}/comm"))
        .is_ok_and(|command| command.starts_with("starling"))
}

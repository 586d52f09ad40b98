//! The command line: what `starling --help` teaches.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, ConfigError, DatabaseConfig, LogFormat};
use crate::serve::{self, Signals};
use crate::{commands, telemetry};

const AFTER_HELP: &str = "\
Examples:
  starling dev
      A whole chat on this machine: its own PostgreSQL, demo users, no settings.
  starling dev --port 8080 --data /tmp/chat
      The same on another port, with its data elsewhere.
  DATABASE_URL=postgres://starling:secret@db/starling starling migrate
      Brings the database up to date, before `serve` uses it.
  DATABASE_URL=postgres://chat:secret@db/chat starling adopt --dry-run
      What it would take to make the database of a Node.js chat backend Starling's.
  DATABASE_URL=... JWT_SECRET_FILE=/run/secrets/jwt BIND_ADDR=0.0.0.0:3000 starling serve
      Serves until SIGTERM or Ctrl-C, then lets clients go and ends.
  starling seed --users 1000 --rooms 100 --members 20 --tokens-out tokens.jsonl
      Users, rooms and access tokens for a load test.

Exit codes:
  0  it did what it was asked to
  1  it failed; the last lines say why
  2  the command line or the configuration is wrong; each wrong variable has a line

`starling <command> --help` says more about one command.";

/// A real-time chat backend: Socket.IO and REST over PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "starling",
    version,
    after_help = "`starling --help` also lists examples, the environment and the exit codes."
)]
#[command(after_long_help = format!("{}\n{AFTER_HELP}", config::variables_help()))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve clients, with the settings of the environment.
    ///
    /// Needs DATABASE_URL and JWT_SECRET. Ends on SIGTERM or Ctrl-C: it stops accepting,
    /// lets clients go, and is gone after DRAIN_TIMEOUT_SECONDS at the latest; a second
    /// signal ends it at once.
    Serve,
    /// Run everything on this machine, with demo users: the quickest way to try it.
    ///
    /// Starts a private PostgreSQL (the programs of the system, see PG_BIN below), brings
    /// it up to date, makes demo users and rooms the first time, prints the address and the
    /// logins, and serves until Ctrl-C; then it stops what it started. Everything that it
    /// keeps is in the data folder: remove that to begin anew.
    ///
    /// Settings of the environment hold here too, but for DATABASE_URL. PG_BIN names the
    /// folder with `postgres` and `initdb` if they are in an unusual place.
    Dev(DevArgs),
    /// Bring the database up to date.
    ///
    /// Needs DATABASE_URL only. May be repeated, and run by several at the same time: one
    /// does the work, the others wait.
    Migrate,
    /// Bring the database of a Node.js chat backend into Starling's schema.
    ///
    /// Needs DATABASE_URL only, as the owner of the tables. The backend's servers go on
    /// writing meanwhile, and beside Starling afterwards. May be stopped at any moment and
    /// run again: it goes on from where it was. The steps, the locks and the way back are
    /// in db/README.md.
    Adopt(AdoptArgs),
    /// Make many users and rooms for a load test.
    ///
    /// Needs DATABASE_URL and JWT_SECRET. Passwords are not hashed one by one: these users
    /// log in with the tokens of the file, not with a password. While `starling dev` runs,
    /// its settings are in its data folder:
    ///
    ///   DATABASE_URL_FILE=.starling/database-url JWT_SECRET_FILE=.starling/jwt-secret \
    ///     starling seed --users 1000 --rooms 100 --members 20 --tokens-out tokens.jsonl
    #[command(verbatim_doc_comment)]
    Seed(SeedArgs),
}

/// Arguments of `starling dev`.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Port to listen on, at 127.0.0.1. Without it: that of BIND_ADDR, else 3000 or the
    /// next one that is free.
    #[arg(long)]
    pub port: Option<u16>,
    /// Folder for the database, the key and the logs.
    #[arg(long, default_value = ".starling", value_name = "FOLDER")]
    pub data: PathBuf,
}

/// Arguments of `starling adopt`.
#[derive(Debug, Clone, Copy, Args)]
pub struct AdoptArgs {
    /// Say what is there, what would be added, how many rows would be touched and what
    /// stands in the way; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The last Node.js server is gone: remove what was there for it, and add the limits
    /// that it might not have kept.
    #[arg(long)]
    pub finish: bool,
}

/// Arguments of `starling seed`.
#[derive(Debug, Clone, Args)]
pub struct SeedArgs {
    /// How many users.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub users: u32,
    /// How many rooms.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rooms: u32,
    /// How many of the users are in each room.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub members: u32,
    /// File for one JSON line per user: {userId, username, token, roomIds}. The tokens are
    /// logins: only its owner can read the file.
    #[arg(long, value_name = "FILE")]
    pub tokens_out: PathBuf,
    /// How long the tokens are valid, in seconds. Without it: ACCESS_TOKEN_TTL_SECONDS.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31 * 24 * 3600))]
    pub token_ttl: Option<u64>,
}

/// Runs the command of the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ConfigError>() => {
            eprintln!("{error}");
            ExitCode::from(config::EXIT_CODE)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    // What is bad here is reported with all else that is wrong.
    let endpoint = config::otlp_endpoint().unwrap_or_default();
    let _traces = telemetry::init(LogFormat::from_env().unwrap_or_default(), endpoint.as_deref());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Serve => {
                let config = Config::from_env()?;
                serve::run(config, Signals::new()?, |_| ()).await
            }
            Command::Dev(args) => commands::dev::run(&args).await,
            Command::Migrate => commands::migrate::run(&DatabaseConfig::from_env()?.url).await,
            Command::Adopt(args) => {
                commands::adopt::run(&DatabaseConfig::from_env()?.url, &args).await
            }
            Command::Seed(args) => commands::seed::run(&Config::from_env()?, &args).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_variable_and_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for variable in config::VARIABLES {
            assert!(help.contains(variable.name), "{}", variable.name);
        }
        assert!(help.contains("Exit codes:"));
    }

    #[test]
    fn dev_needs_nothing() {
        let cli = Cli::parse_from(["starling", "dev"]);
        assert!(
            matches!(cli.command, Command::Dev(DevArgs { port: None, data }) if data.as_os_str() == ".starling")
        );
    }

    #[test]
    fn seed_takes_its_counts() {
        let cli = Cli::parse_from([
            "starling",
            "seed",
            "--users",
            "10",
            "--rooms",
            "2",
            "--members",
            "5",
            "--tokens-out",
            "t",
        ]);
        assert!(matches!(
            cli.command,
            Command::Seed(SeedArgs { users: 10, rooms: 2, members: 5, .. })
        ));
    }
}

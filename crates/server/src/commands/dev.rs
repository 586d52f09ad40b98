//! `starling dev`: everything on this machine.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use starling_chat::Auth;
use starling_protocol::{ClientId, MessageId, MessageType, RoomId, Timestamp, UserId};
use starling_repository::{CreateUser, NewMessage, NewUser, Repository};
use uuid::Uuid;

use crate::api::DemoUser;
use crate::cli::DevArgs;
use crate::config::{self, Config};
use crate::dev_postgres::DevPostgres;
use crate::serve::{self, Signals};

/// The password of all demo users.
pub const PASSWORD: &str = "starling-demo";
/// Where a running `starling dev` tells other programs of its database.
const DATABASE_URL: &str = "database-url";
const USERS: [(&str, &str); 6] = [
    ("alice", "Alice Adams"),
    ("bob", "Bob Brown"),
    ("carol", "Carol Chen"),
    ("dave", "Dave Diaz"),
    ("erin", "Erin Evans"),
    ("frank", "Frank Fischer"),
];
const TEAM: [(usize, &str); 12] = [
    (0, "Good morning! The new build is up."),
    (1, "Morning. It starts in two seconds here."),
    (2, "Does it keep my drafts?"),
    (0, "Not yet, that is next week."),
    (3, "I tried it on my phone. Works over polling too."),
    (1, "And when the train goes into the tunnel?"),
    (3, "It waits, and then everything arrives in order."),
    (2, "Nice. I'll write that down for the release notes."),
    (4, "Can somebody show me how to run it?"),
    (0, "script/server, that is all."),
    (4, "It runs! Thank you."),
    (5, "Welcome aboard, Erin."),
];
const COFFEE: [(usize, &str); 8] = [
    (2, "Who is for coffee at three?"),
    (5, "Me!"),
    (3, "Is there cake?"),
    (2, "There was cake."),
    (5, "There will be cake. I baked."),
    (3, "☕🍰"),
    (2, "Frank, you are the best."),
    (5, "I know."),
];
const DIRECT: [(usize, &str); 6] = [
    (0, "Hi Bob, do you have a minute?"),
    (1, "Sure, what is it?"),
    (0, "Open a second window and log in as me."),
    (1, "We can both see this?"),
    (0, "As soon as it is stored."),
    (1, "I like that."),
];

/// Runs until Ctrl-C or SIGTERM, then stops what it started.
///
/// # Errors
/// When a part can't be started; says which and why.
pub async fn run(args: &DevArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    fs::create_dir_all(&args.data)
        .with_context(|| format!("{} can't be made", args.data.display()))?;
    let mut postgres = DevPostgres::spawn(&args.data).await?;
    let prepared = tokio::select! {
        prepared = prepare(args, &mut postgres) => prepared.map(Some),
        () = signals.next() => Ok(None),
    };
    let done = match prepared {
        Ok(Some(config)) => serve::run(config, signals, |addr| welcome(addr, args)).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    fs::remove_file(args.data.join(DATABASE_URL)).ok();
    postgres.stop().await;
    done
}

async fn prepare(args: &DevArgs, postgres: &mut DevPostgres) -> anyhow::Result<Config> {
    postgres.ready().await?;
    let secret = kept_secret(&args.data.join("jwt-secret"))?;
    write_private(&args.data.join(DATABASE_URL), postgres.url())?;
    let addr = address(args.port)?;
    let lookup = |name: &str| match name {
        "DATABASE_URL" => Some(postgres.url().to_owned()),
        "JWT_SECRET" => Some(secret.clone()),
        "BIND_ADDR" => Some(addr.to_string()),
        "DATABASE_URL_FILE" | "JWT_SECRET_FILE" | "REDIS_URL" | "REDIS_URL_FILE" => None,
        other => config::environment(other),
    };
    let mut config = Config::from_map(&lookup)?;
    config.demo_users = USERS
        .map(|(username, display_name)| DemoUser { username, display_name, password: PASSWORD })
        .to_vec();
    let repository = serve::repository(&config)?;
    repository.migrate().await.context("the database could not be brought up to date")?;
    // Written when all of it is there: what was cut off is completed next time,
    // and what somebody removed later stays away.
    let made = args.data.join("demo-data");
    if !made.exists() {
        demo(&repository, &serve::auth(&config)?).await?;
        fs::write(&made, "made\n")?;
    }
    repository.close().await;
    Ok(config)
}

fn welcome(addr: SocketAddr, args: &DevArgs) {
    println!("\n  Starling runs at http://{addr}\n");
    println!("  Log in as alice, bob, carol, dave, erin or frank; the password is {PASSWORD}");
    println!("  Ctrl-C stops it; everything it keeps is in {}\n", args.data.display());
}

/// The port asked for, or 3000, or the next free one.
fn address(port: Option<u16>) -> anyhow::Result<SocketAddr> {
    if let Some(port) = port {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Some(addr) = config::environment("BIND_ADDR") {
        return addr.parse().with_context(|| format!("BIND_ADDR={addr}: must be address:port"));
    }
    for port in 3000..3100 {
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
    }
    bail!("the ports 3000 to 3099 are all taken: choose one with --port")
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("{} can't be written", path.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// A random secret that outlives restarts, so that logins do too.
pub(crate) fn kept_secret(path: &Path) -> anyhow::Result<String> {
    if let Ok(secret) = fs::read_to_string(path)
        && secret.len() >= 32
    {
        return Ok(secret);
    }
    let random = rand::random::<[u8; 36]>();
    let secret = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
    write_private(path, &secret)?;
    Ok(secret)
}

/// Demo users and rooms; what is there of them stays as it is.
async fn demo(repository: &Repository, auth: &Auth) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let password_hash = auth.hash(PASSWORD.to_owned()).await?;
    let mut ids = Vec::new();
    for (username, display_name) in USERS {
        if let Some(user) = repository.credentials(username).await? {
            ids.push(user.user_id);
            continue;
        }
        let user = NewUser {
            username: username.to_owned(),
            email: format!("{username}@example.com"),
            password_hash: password_hash.clone(),
            display_name: display_name.to_owned(),
            created_at: now,
        };
        match repository.create_user(user).await? {
            CreateUser::Created(user) => ids.push(user.id),
            _ => bail!("{username}@example.com belongs to another user: no demo user {username}"),
        }
    }
    let [alice, bob, carol, dave, erin, frank] = ids[..] else { bail!("a demo user is gone") };
    // Before the history: no message is older than its room.
    let now = Timestamp::from(now.utc() - chrono::Duration::hours(2));
    let team = [alice, bob, carol, dave, erin, frank];
    let team = group(repository, "Team Starling", &team, now).await?;
    let coffee = [carol, dave, frank, alice];
    let coffee = group(repository, "Coffee corner", &coffee, now).await?;
    let direct = repository.create_direct(alice, bob, now).await?;
    let (direct, _) = direct.context("a demo user is gone")?;
    say(repository, &ids, coffee, &COFFEE, 90).await?;
    say(repository, &ids, team, &TEAM, 60).await?;
    say(repository, &ids, direct, &DIRECT, 10).await?;
    Ok(())
}

/// The group of this name that the first of the members owns.
async fn group(
    repository: &Repository,
    name: &str,
    members: &[UserId],
    now: Timestamp,
) -> anyhow::Result<RoomId> {
    let rooms = repository.rooms_of(members[0]).await?;
    if let Some(room) = rooms.iter().find(|room| room.name.as_deref() == Some(name)) {
        return Ok(room.id);
    }
    let made = repository.create_group(members[0], name, &members[1..], now).await?;
    made.context("a demo user is gone")
}

/// Stores lines that began so many minutes ago; each writer has read the rest.
async fn say(
    repository: &Repository,
    ids: &[UserId],
    room: RoomId,
    lines: &[(usize, &str)],
    minutes_ago: i64,
) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let begin = now.utc() - chrono::Duration::minutes(minutes_ago);
    let messages: Vec<NewMessage> = lines
        .iter()
        .zip(0..)
        .map(|((who, line), minute)| NewMessage {
            id: MessageId(Uuid::now_v7()),
            room_id: room,
            sender_id: ids[*who],
            content: (*line).to_owned(),
            message_type: MessageType::Text,
            // The same each time: a line that is there is not said again.
            client_id: Some(ClientId(Uuid::from_u64_pair(room.0.unsigned_abs().into(), minute))),
            reply_to: None,
            metadata: serde_json::Map::new(),
            created_at: Timestamp::from(
                begin + chrono::Duration::seconds(minute.cast_signed() * 40),
            ),
        })
        .collect();
    repository.append(&messages, 64).await?;
    if let Some(last) = messages.last() {
        let mut readers: Vec<usize> = lines.iter().map(|(who, _)| *who).collect();
        readers.sort_unstable();
        readers.dedup();
        for who in readers {
            repository.read(ids[who], room, last.id, &[], now).await?;
        }
    }
    Ok(())
}

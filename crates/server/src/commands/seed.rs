//! `starling seed`: many users, rooms and tokens for load tests.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use serde_json::json;
use starling_chat::Identity;
use starling_protocol::{RoomId, SessionId, Timestamp, UserId};
use uuid::Uuid;

use crate::cli::SeedArgs;
use crate::config::Config;
use crate::serve;

/// No password matches this, and it costs no hash.
const NO_PASSWORD: &str = "!seeded";

/// Makes them, and writes a JSON line for each user.
///
/// # Errors
/// When the database or the file can't be written.
pub async fn run(config: &Config, args: &SeedArgs) -> anyhow::Result<()> {
    let repository = serve::repository(config)?;
    let auth = serve::auth(config)?;
    let now = Timestamp::now();
    // A prefix of its own, so that it can be run again.
    let run = Uuid::now_v7().simple().to_string();
    let prefix = format!("seed-{}-", &run[4..12]);
    let users = repository.bulk_users(args.users, NO_PASSWORD, &prefix, now).await?;

    let members = args.members.min(args.users) as usize;
    let lists: Vec<Vec<UserId>> = (0..args.rooms as usize)
        .map(|room| {
            // Neighbours, so that every user is in about as many rooms.
            let first = room * members;
            (first..first + members).map(|n| users[n % users.len()].0).collect()
        })
        .collect();
    let rooms = repository.bulk_rooms(&lists, &format!("Seeded {prefix}"), now).await?;
    let mut rooms_of = std::collections::HashMap::<UserId, Vec<RoomId>>::new();
    for (room, list) in rooms.iter().zip(&lists) {
        for user in list {
            rooms_of.entry(*user).or_default().push(*room);
        }
    }

    let life = args.token_ttl.unwrap_or(config.access_token_ttl.as_secs());
    let life = i64::try_from(life).unwrap_or(i64::MAX / 4);
    let expires = Timestamp::from(now.utc() + chrono::Duration::seconds(life));
    let logins: Vec<(SessionId, UserId)> =
        users.iter().map(|(user, _)| (SessionId(Uuid::now_v7()), *user)).collect();
    repository.bulk_logins(&logins, now, expires).await?;

    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&args.tokens_out)
        .with_context(|| format!("{} can't be written", args.tokens_out.display()))?;
    let mut out = std::io::BufWriter::new(file);
    for ((session, user), (_, username)) in logins.into_iter().zip(&users) {
        let token = auth.token_for(Identity { user, session }, now, life)?;
        let rooms = rooms_of.remove(&user).unwrap_or_default();
        let line =
            json!({ "userId": user, "username": username, "token": token, "roomIds": rooms });
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    println!(
        "{} users, {} rooms; tokens in {}",
        users.len(),
        rooms.len(),
        args.tokens_out.display()
    );
    repository.close().await;
    Ok(())
}

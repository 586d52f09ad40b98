//! Finds what this instance missed of the messages of its rooms, and reads it from
//! PostgreSQL.
//!
//! Messages that two instances changed at the same moment it tells again as they are.
//!
//! What it can't send again it says with `sync:required`: rooms that are too far behind,
//! and those whose older messages were changed around a time when publications of other
//! instances were lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socketioxide_node_redis::Notice;
use starling_protocol::RoomId;
use starling_repository::Repository;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::hub::Hub;
use super::order::Hole;

/// How long a message that is missing may still be on its way.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often that is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often all rooms are compared with PostgreSQL: a lost message that no other
/// follows shows itself only there.
const COMPARISON: Duration = Duration::from_secs(10);
/// After the connection to the others came back: what they publish meanwhile is
/// given this long to arrive by itself.
const SETTLING: Duration = Duration::from_millis(500);
/// Messages of a hole that are read at once.
const READ: i64 = 200;
/// A room that is further behind is not caught up with: its sockets are told to ask.
/// More would only fill their buffers.
const BEHIND: i64 = 5000;
/// Holes that are mended in one go, one after the other.
const HOLES: usize = 64;
/// Messages that are looked at in one go, since two instances changed them.
const CROSSED: usize = 200;
/// Rooms in one comparison's statement.
const ROOMS: usize = 5000;

/// Runs for as long as the instance does.
pub async fn run(hub: Arc<Hub>, repository: Repository, mut notices: broadcast::Receiver<Notice>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut comparison = tokio::time::interval(COMPARISON);
    comparison.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = Changes::default();
    let mut gaps = HashSet::new();
    loop {
        tokio::select! {
            _ = tick.tick() => {
                mend(&hub, &repository, &mut gaps).await;
                settle(&hub, &repository).await;
            }
            _ = comparison.tick() => compare(&hub, &repository, &mut changes).await,
            notice = notices.recv() => match notice {
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    changes.missed = true;
                    comparison.reset_after(SETTLING);
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

/// `gaps`: the rooms in which something was missing when this was last called.
async fn mend(hub: &Hub, repository: &Repository, gaps: &mut HashSet<RoomId>) {
    let holes = hub.holes(PATIENCE);
    let now: HashSet<_> = holes.iter().map(|hole| hole.room).collect();
    let found = now.difference(gaps).count() as u64;
    let healed = gaps.difference(&now).count() as u64;
    metrics::counter!("starling_gaps_found_total").increment(found);
    metrics::counter!("starling_gaps_healed_total").increment(healed);
    *gaps = now;
    for hole in holes.into_iter().take(HOLES) {
        let Hole { room, after, through } = hole;
        let Some(after) = after else {
            hub.mend(hole, Vec::new(), false);
            continue;
        };
        if through - after > BEHIND {
            hub.give_up(hole);
            continue;
        }
        match repository.messages_between(room, after, through, READ).await {
            Ok(messages) => {
                metrics::counter!("starling_messages_mended_total")
                    .increment(messages.len() as u64);
                // Fewer than asked for: there are no others.
                let whole = (messages.len() as i64) < READ;
                hub.mend(hole, messages, whole);
            }
            Err(error) => {
                tracing::warn!(%error, "missing messages can't be read; tried again");
                return;
            }
        }
    }
}

/// What two instances changed at about the same time is told again as it is.
async fn settle(hub: &Hub, repository: &Repository) {
    let crossed = hub.crossed(CROSSED, PATIENCE);
    if crossed.is_empty() {
        return;
    }
    let since = Instant::now();
    match repository.messages_as_everybody(&crossed).await {
        Ok(messages) => {
            let told = hub.settle(messages, since);
            metrics::counter!("starling_changes_settled_total").increment(told);
        }
        Err(error) => {
            tracing::warn!(%error, "changed messages can't be read; tried again");
            hub.still_crossed(&crossed);
        }
    }
}

/// Which changes of messages the sockets here know of.
#[derive(Default)]
struct Changes {
    /// Each room's version when it was last compared; the nil UUID before any change.
    versions: HashMap<RoomId, Uuid>,
    /// Publications were lost since.
    missed: bool,
}

async fn compare(hub: &Hub, repository: &Repository, changes: &mut Changes) {
    let mut versions = HashMap::new();
    let mut stale = Vec::new();
    for rooms in hub.places().chunks(ROOMS) {
        let rooms: Vec<_> = rooms.iter().map(|(room, _)| *room).collect();
        let heads = match repository.heads(&rooms).await {
            Ok(heads) => heads,
            // What was missed still has to be looked for.
            Err(error) => return tracing::debug!(%error, "rooms can't be compared"),
        };
        let seqs: Vec<_> = heads.iter().map(|head| (head.room, head.seq)).collect();
        hub.exist(&seqs);
        for head in heads {
            let known = changes.versions.get(&head.room).copied().unwrap_or_default();
            if changes.missed && head.version != known {
                stale.push((head.room, head.seq));
            }
            versions.insert(head.room, head.version);
        }
    }
    hub.sync_required(&stale);
    *changes = Changes { versions, missed: false };
}

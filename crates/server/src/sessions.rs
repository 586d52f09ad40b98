//! Keeps `user_sessions` true: which sockets are open on which instance.
//!
//! Sockets that open and close are written in batches: while one is being written, the
//! next gathers. The instance says every [`BEAT`] that it lives, and is believed for
//! [`LEASE`]; each instance sweeps those that no longer are, with their sockets, so no
//! row outlives its instance by more than both together. One that was stopped for
//! longer finds that out with its next beat and writes again what it has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use starling_protocol::Timestamp;
use starling_repository::{OpenSocket, Repository};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::transport::hub::{Hub, Link};

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// How long one is believed: several beats may fail.
const LEASE: Duration = Duration::from_secs(20);
/// Every so many beats, what concerns programs that hold no lease.
const BEATS_OF_OTHERS: u32 = 6;
/// Their sockets are swept when the heartbeat stopped for so long.
const STALE: Duration = Duration::from_secs(90);
/// Changes in one statement.
const BATCH: usize = 1024;
/// Changes that wait. Beyond, all is written anew with the next beat.
const WAITING: usize = 16_384;

enum Change {
    Opened(OpenSocket),
    Closed(String),
}

/// Takes down what opens and closes. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    changes: mpsc::Sender<Change>,
    /// Something was not written: all has to be.
    unsure: Arc<AtomicBool>,
}

fn row(link: &Link) -> OpenSocket {
    // The id tells when it was made.
    let made = link.id.0.get_timestamp().and_then(|time| {
        let (seconds, nanoseconds) = time.to_unix();
        chrono::DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanoseconds)
    });
    OpenSocket {
        user: link.who.user,
        socket_id: link.id.0.to_string(),
        connected_at: made.map_or_else(Timestamp::now, Timestamp::from),
    }
}

impl Sessions {
    /// Starts to keep the rows of an instance, until the task is aborted.
    #[must_use]
    pub fn start(
        repository: Repository,
        hub: Arc<Hub>,
        instance: &str,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (changes, queue) = mpsc::channel(WAITING);
        // Rows of a predecessor of the same name go with the first beat.
        let unsure = Arc::new(AtomicBool::new(true));
        let keeper =
            Keeper { repository, hub, instance: instance.to_owned(), unsure: unsure.clone() };
        (Self { changes, unsure }, tokio::spawn(keeper.run(queue)))
    }

    /// A socket opened.
    pub fn opened(&self, link: &Link) {
        self.note(Change::Opened(row(link)));
    }

    /// A socket closed.
    pub fn closed(&self, link: &Link) {
        self.note(Change::Closed(link.id.0.to_string()));
    }

    fn note(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            self.unsure.store(true, Ordering::Release);
        }
    }
}

struct Keeper {
    repository: Repository,
    hub: Arc<Hub>,
    instance: String,
    unsure: Arc<AtomicBool>,
}

impl Keeper {
    async fn run(self, mut queue: mpsc::Receiver<Change>) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = 0u32;
        let mut changes = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                taken = queue.recv_many(&mut changes, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.write(&mut changes).await;
                }
                _ = beat.tick() => {
                    if let Err(error) = self.live(beats).await {
                        tracing::warn!(%error, "the table of open sockets could not be kept");
                    }
                    beats = beats.wrapping_add(1);
                }
            }
        }
    }

    async fn write(&self, changes: &mut Vec<Change>) {
        let (mut opened, mut closed) = (HashMap::new(), Vec::new());
        for change in changes.drain(..) {
            match change {
                Change::Opened(socket) => {
                    opened.insert(socket.socket_id.clone(), socket);
                }
                Change::Closed(id) => {
                    if opened.remove(&id).is_none() {
                        closed.push(id);
                    }
                }
            }
        }
        let opened: Vec<_> = opened.into_values().collect();
        if opened.is_empty() && closed.is_empty() {
            return;
        }
        if let Err(error) = self.repository.sockets_changed(&self.instance, &opened, &closed).await
        {
            tracing::warn!(%error, "sockets that opened or closed are written later");
            self.unsure.store(true, Ordering::Release);
        }
    }

    async fn live(&self, beats: u32) -> starling_repository::Result<()> {
        let alive = self.repository.renew_instance(&self.instance, LEASE).await?;
        if self.unsure.swap(false, Ordering::AcqRel) || !alive {
            let open: Vec<_> = self.hub.links().iter().map(|link| row(link)).collect();
            if let Err(error) = self.repository.sockets_are(&self.instance, &open).await {
                self.unsure.store(true, Ordering::Release);
                return Err(error);
            }
        }
        let swept = self.repository.sweep_instances().await?;
        if !swept.instances.is_empty() {
            tracing::info!(instances = ?swept.instances, sockets = swept.sockets, "swept");
        }
        if beats.is_multiple_of(BEATS_OF_OTHERS) {
            let now = Timestamp::now();
            self.repository.heartbeat(&self.instance, now).await?;
            self.repository.forget_stale(Timestamp::from(now.utc() - STALE)).await?;
        }
        Ok(())
    }
}

//! Group commit: the sends of all sockets gather in one writer. While one batch
//! is being written, the next gathers, so an idle server adds no delay and a
//! busy one pays for one commit a batch. Since one task commits and publishes,
//! a room's messages are published in the order of their `seq`.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use metrics::Histogram;
use starling_protocol::event::ServerEvent;
use starling_protocol::{Failure, Message};
use starling_repository::{Append, NewMessage, Repository};
use tracing::{Span, debug_span};

use crate::messages::for_room;
use crate::ports::{Except, Fanout, RoomCache, Target};
use crate::queue::{Answer, Jobs, PATIENCE, Queue, Waiting};
use crate::{no_room, storage};

/// Messages that may wait for the writer: some seconds of a full load.
const WAITING: u32 = 4096;
/// Messages a transaction: keeps locks short, and costs a commit's share of 1/256.
const BATCH: usize = 256;

/// Hands messages to the writing task.
#[derive(Clone)]
pub struct Writer {
    queue: Queue<Job, Message>,
    cache: Arc<OnceLock<Arc<dyn RoomCache>>>,
}

impl Writer {
    pub(crate) fn start(
        repository: Repository,
        fanout: Arc<dyn Fanout>,
        receipt_rows_max_members: i64,
    ) -> Self {
        let (queue, jobs) = Queue::new(WAITING);
        let cache = Arc::new(OnceLock::new());
        let task = Task {
            repository,
            fanout,
            receipt_rows_max_members,
            cache: cache.clone(),
            send_commit: metrics::histogram!("starling_send_commit_seconds"),
            commit_delivery: metrics::histogram!("starling_commit_delivery_seconds"),
        };
        tokio::spawn(task.run(jobs));
        Self { queue, cache }
    }

    /// What is stored from now on goes to the cache, after acknowledgements and
    /// publication. The first call holds.
    pub(crate) fn feed(&self, cache: Arc<dyn RoomCache>) {
        self.cache.set(cache).ok();
    }

    /// Puts a message into the queue. Its place there is its place in the room.
    pub(crate) fn enqueue(&self, message: NewMessage) -> Result<Sending, Failure> {
        let asked = Asked { at: Instant::now(), by: Span::current() };
        Ok(Sending(self.queue.enqueue(Job { message, asked })?))
    }

    /// Takes nothing more, and waits until all that was taken is answered.
    pub(crate) async fn drain(&self) {
        self.queue.drain().await;
    }
}

/// A message on its way into the database.
pub struct Sending(Waiting<Message>);

impl Sending {
    /// Returns when the message is committed, or will never be.
    ///
    /// # Errors
    /// `not_found`, `validation_failed`, `conflict`, `unavailable`.
    pub async fn stored(self) -> Result<Message, Failure> {
        self.0.answer().await
    }
}

struct Job {
    message: NewMessage,
    asked: Asked,
}

/// When a message was queued, and in which span.
struct Asked {
    at: Instant,
    by: Span,
}

/// Who waits for a message.
type Waits = (Asked, Answer<Message>);

fn refuse(waiting: Vec<Waits>, failure: &Failure) {
    for (_, answer) in waiting {
        answer.send(Err(failure.clone()));
    }
}

struct Task {
    repository: Repository,
    fanout: Arc<dyn Fanout>,
    receipt_rows_max_members: i64,
    cache: Arc<OnceLock<Arc<dyn RoomCache>>>,
    send_commit: Histogram,
    commit_delivery: Histogram,
}

/// A span below that of a job's sender, if anybody looks at that.
fn below(sender: &Span, span: impl FnOnce() -> Span) -> Span {
    if sender.is_none() { Span::none() } else { span() }
}

impl Task {
    async fn run(self, mut queue: Jobs<Job, Message>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut jobs, BATCH).await > 0 {
            metrics::histogram!("starling_batch_messages").record(jobs.len() as f64);
            let (messages, waiting): (Vec<_>, Vec<Waits>) =
                jobs.drain(..).map(|(job, answer)| (job.message, (job.asked, answer))).unzip();
            let commits: Vec<_> = waiting
                .iter()
                .map(|(Asked { by, .. }, _)| {
                    below(by, || debug_span!(parent: by, "commit", batch = messages.len()))
                })
                .collect();
            let appended = self.append(&messages).await;
            drop(commits);
            match appended {
                None => {
                    tracing::error!("a batch took too long; whether it was stored is unknown");
                    refuse(waiting, &Failure::unavailable());
                }
                Some(Ok(appended)) => self.finish(appended, waiting),
                Some(Err(error)) if error.is_unavailable() || messages.len() == 1 => {
                    refuse(waiting, &storage(error));
                }
                // One of them is at fault: the others shall not suffer for it.
                Some(Err(_)) => {
                    for (message, waits) in messages.into_iter().zip(waiting) {
                        match self.append(&[message]).await {
                            None => refuse(vec![waits], &Failure::unavailable()),
                            Some(Ok(appended)) => self.finish(appended, vec![waits]),
                            Some(Err(error)) => refuse(vec![waits], &storage(error)),
                        }
                    }
                }
            }
        }
    }

    /// Acknowledges and publishes what was committed just now, then tells the cache.
    fn finish(&self, appended: Vec<Append>, waiting: Vec<Waits>) {
        let committed = Instant::now();
        let stored = self.cached(&appended);
        let mut outcomes = appended.into_iter().zip(waiting);
        self.fanout.together(&mut || {
            for (outcome, (asked, answer)) in outcomes.by_ref() {
                answer.send(self.outcome(outcome, &asked, committed));
            }
        });
        if let (Some(cache), false) = (self.cache.get(), stored.is_empty()) {
            cache.stored(stored);
        }
    }

    /// What the cache is told: copies only if there is one.
    fn cached(&self, appended: &[Append]) -> Vec<Message> {
        if self.cache.get().is_none() {
            return Vec::new();
        }
        let stored = appended.iter().filter_map(|outcome| match outcome {
            Append::Stored(message) => Some(for_room(message.clone())),
            _ => None,
        });
        stored.collect()
    }

    /// `None` when the database said nothing in time.
    async fn append(
        &self,
        messages: &[NewMessage],
    ) -> Option<starling_repository::Result<Vec<Append>>> {
        let append = self.repository.append(messages, self.receipt_rows_max_members);
        tokio::time::timeout(PATIENCE, append).await.ok()
    }

    fn outcome(
        &self,
        outcome: Append,
        asked: &Asked,
        committed: Instant,
    ) -> Result<Message, Failure> {
        match outcome {
            Append::Stored(message) => {
                metrics::counter!("starling_messages_stored_total").increment(1);
                self.send_commit.record(committed.duration_since(asked.at));
                let by = &asked.by;
                let publish = below(by, || debug_span!(parent: by, "publish", seq = message.seq));
                publish.in_scope(|| {
                    let event = ServerEvent::MessageNew(for_room(message.clone()));
                    self.fanout.publish(Target::Room(message.room_id), Except::Nobody, event);
                });
                self.commit_delivery.record(committed.elapsed());
                Ok(message)
            }
            Append::Repeated(message) => Ok(message),
            Append::Conflict => Err(Failure::conflict(
                "This clientId was used before, for another room or another content.",
            )),
            Append::NotMember => Err(no_room()),
            Append::ReplyNotFound => {
                Err(Failure::field("replyTo", "must be a message of the same room"))
            }
        }
    }
}

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
    queue: Queue<NewMessage, Message>,
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
        Ok(Sending(self.queue.enqueue(message)?))
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
    async fn run(self, mut queue: Jobs<NewMessage, Message>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut jobs, BATCH).await > 0 {
            metrics::histogram!("starling_batch_messages").record(jobs.len() as f64);
            let (messages, answers): (Vec<_>, Vec<Answer<_>>) = jobs.drain(..).unzip();
            let commits: Vec<_> = answers
                .iter()
                .map(|answer| {
                    let by = &answer.asked.by;
                    below(by, || debug_span!(parent: by, "commit", batch = messages.len()))
                })
                .collect();
            let appended = self.append(&messages).await;
            drop(commits);
            match appended {
                None => {
                    tracing::error!("a batch took too long; whether it was stored is unknown");
                    for answer in answers {
                        answer.send(Err(Failure::unavailable()));
                    }
                }
                Some(Ok(appended)) => {
                    let committed = Instant::now();
                    let stored = self.cached(&appended);
                    let mut outcomes = appended.into_iter().zip(answers);
                    self.fanout.together(&mut || {
                        for (outcome, answer) in outcomes.by_ref() {
                            self.answer(outcome, answer, committed);
                        }
                    });
                    if let (Some(cache), false) = (self.cache.get(), stored.is_empty()) {
                        cache.stored(stored);
                    }
                }
                Some(Err(error)) if error.is_unavailable() || messages.len() == 1 => {
                    let failure = storage(error);
                    for answer in answers {
                        answer.send(Err(failure.clone()));
                    }
                }
                // One of them is at fault: the others shall not suffer for it.
                Some(Err(_)) => {
                    for (message, answer) in messages.into_iter().zip(answers) {
                        match self.append(&[message]).await {
                            None => answer.send(Err(Failure::unavailable())),
                            Some(Ok(mut one)) => {
                                let committed = Instant::now();
                                let stored = self.cached(&one);
                                match one.pop() {
                                    Some(outcome) => self.answer(outcome, answer, committed),
                                    None => drop(answer),
                                }
                                if let (Some(cache), false) = (self.cache.get(), stored.is_empty())
                                {
                                    cache.stored(stored);
                                }
                            }
                            Some(Err(error)) => answer.send(Err(storage(error))),
                        }
                    }
                }
            }
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

    fn answer(&self, outcome: Append, answer: Answer<Message>, committed: Instant) {
        let result = match outcome {
            Append::Stored(message) => {
                metrics::counter!("starling_messages_stored_total").increment(1);
                self.send_commit.record(committed.duration_since(answer.asked.at));
                let by = &answer.asked.by;
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
        };
        answer.send(result);
    }
}

//! Group commit of `message:delivered` and `message:read`: the marks of all
//! sockets gather, and while one batch is being written, the next gathers, as the
//! messages do in the [`writer`](crate::writer). Marks of one user in one room are
//! written as one, and each sender is told once a batch what became of its messages
//! with that reader.

use std::sync::Arc;

use starling_protocol::event::{MessageStatus, ReceiptStatus, RoomRead, ServerEvent};
use starling_protocol::{Failure, Timestamp};
use starling_repository::{
    Advanced, Mark, MarkProgress, Marked, Moved, Outcome, Progress, Repository,
};

use crate::ports::{ConnectionId, Except, Fanout, Target};
use crate::queue::{Answer, Jobs, PATIENCE, Queue, Waiting};
use crate::storage;

/// Marks that may wait: more than the sockets of an instance, each of which has one
/// on its way at a time but for an offline batch of many rooms. A message in a large
/// room has all of them answer at once.
const WAITING: u32 = 16_384;
/// Marks a transaction. They hold up nobody but other marks of the same members, and
/// what is merged only grows with the batch; above, the gain is small, and each mark
/// waits for all.
const BATCH: usize = 512;
/// Ids that the marks of a transaction name, with those held by offline deliveries,
/// of which there may be thousands a mark: keeps a statement's arguments below a
/// megabyte. The last mark of a batch may go beyond.
const BATCH_IDS: usize = 32_768;

/// Hands marks to the writing task.
#[derive(Clone)]
pub(crate) struct Marks {
    queue: Queue<Job, Marked>,
}

struct Job {
    mark: Mark,
    by: By,
}

/// The connection that knows by its answer; the user's others are told.
type By = Option<ConnectionId>;

impl Marks {
    pub(crate) fn start(
        repository: Repository,
        fanout: Arc<dyn Fanout>,
        receipt_rows_max_members: i64,
    ) -> Self {
        let (queue, jobs) = Queue::new(WAITING);
        tokio::spawn(Task { repository, fanout, receipt_rows_max_members }.run(jobs));
        Self { queue }
    }

    /// Puts a mark into the queue. It is answered when it is committed, or will
    /// never be.
    pub(crate) fn enqueue(&self, mark: Mark, by: By) -> Result<Waiting<Marked>, Failure> {
        self.queue.enqueue(Job { mark, by })
    }

    /// Takes nothing more, and waits until all that was taken is answered.
    pub(crate) async fn drain(&self) {
        self.queue.drain().await;
    }
}

/// How many ids a mark names.
fn ids(mark: &Mark) -> usize {
    match &mark.progress {
        MarkProgress::Delivered(given) => given.len(),
        MarkProgress::Read { held, .. } => held.len() + 1,
    }
}

/// Waits for a mark, and takes what is there with it. False at the end.
async fn gather(queue: &mut Jobs<Job, Marked>, batch: &mut Vec<(Job, Answer<Marked>)>) -> bool {
    let mut next = queue.recv().await;
    let mut named = 0;
    while let Some(job) = next {
        named += ids(&job.0.mark);
        batch.push(job);
        let full = batch.len() >= BATCH || named >= BATCH_IDS;
        next = if full { None } else { queue.try_recv().ok() };
    }
    !batch.is_empty()
}

struct Task {
    repository: Repository,
    fanout: Arc<dyn Fanout>,
    receipt_rows_max_members: i64,
}

impl Task {
    async fn run(self, mut queue: Jobs<Job, Marked>) {
        let mut batch = Vec::with_capacity(BATCH);
        while gather(&mut queue, &mut batch).await {
            metrics::histogram!("starling_batch_marks").record(batch.len() as f64);
            let (marks, waiting): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|(job, answer)| (job.mark, (job.by, answer))).unzip();
            let now = Timestamp::now();
            match self.mark(&marks, now).await {
                None => {
                    tracing::error!("marks took too long; whether they were stored is unknown");
                    refuse(waiting, &Failure::unavailable());
                }
                Some(Ok(outcome)) => self.finish(outcome, now, waiting),
                Some(Err(error)) if error.is_unavailable() || marks.len() == 1 => {
                    refuse(waiting, &storage(error));
                }
                // One of them is at fault: the others shall not suffer for it.
                Some(Err(_)) => {
                    for (mark, waiting) in marks.into_iter().zip(waiting) {
                        let now = Timestamp::now();
                        match self.mark(&[mark], now).await {
                            None => refuse(vec![waiting], &Failure::unavailable()),
                            Some(Ok(outcome)) => self.finish(outcome, now, vec![waiting]),
                            Some(Err(error)) => refuse(vec![waiting], &storage(error)),
                        }
                    }
                }
            }
        }
    }

    /// `None` when the database said nothing in time.
    async fn mark(
        &self,
        marks: &[Mark],
        now: Timestamp,
    ) -> Option<starling_repository::Result<Outcome>> {
        let mark = self.repository.mark(marks, now, self.receipt_rows_max_members);
        tokio::time::timeout(PATIENCE, mark).await.ok()
    }

    /// Tells the senders and the reader's other sockets, then answers.
    fn finish(&self, outcome: Outcome, at: Timestamp, waiting: Vec<(By, Answer<Marked>)>) {
        self.fanout.together(&mut || {
            for moved in &outcome.moved {
                self.tell_senders(moved, &moved.delivered, ReceiptStatus::Delivered, at);
                self.tell_senders(moved, &moved.read, ReceiptStatus::Read, at);
                if let Some(Advanced { last_read_seq, by }) = moved.advanced {
                    let but = waiting.get(by).and_then(|(by, _)| *by);
                    let but = but.map_or(Except::Nobody, Except::Connection);
                    let read = RoomRead { room_id: moved.room_id, last_read_seq };
                    let event = ServerEvent::RoomRead(read);
                    self.fanout.publish(Target::User(moved.user_id), but, event);
                }
            }
        });
        for (marked, (_, answer)) in outcome.answers.into_iter().zip(waiting) {
            answer.send(Ok(marked));
        }
    }

    fn tell_senders(
        &self,
        moved: &Moved,
        progress: &[Progress],
        status: ReceiptStatus,
        at: Timestamp,
    ) {
        for Progress { sender_id, message_ids } in progress {
            let event = MessageStatus {
                room_id: moved.room_id,
                message_ids: message_ids.clone(),
                user_id: moved.user_id,
                status,
                at,
            };
            let event = ServerEvent::MessageStatus(event);
            self.fanout.publish(Target::User(*sender_id), Except::Nobody, event);
        }
    }
}

fn refuse(waiting: Vec<(By, Answer<Marked>)>, failure: &Failure) {
    for (_, answer) in waiting {
        answer.send(Err(failure.clone()));
    }
}

//! A bounded queue in front of a task that takes many jobs at a time.

use std::sync::Arc;
use std::time::Duration;

use starling_protocol::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// A batch that takes longer is given up: PostgreSQL itself ends a statement after
/// 10 s, so this is a connection that fell silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12);

/// Where the task takes its jobs from; each is to be answered.
pub(crate) type Jobs<J, R> = mpsc::UnboundedReceiver<(J, Answer<R>)>;

/// Hands jobs to the task.
pub(crate) struct Queue<J, R> {
    // Bounded by `places`: a job holds one until it is answered.
    jobs: mpsc::UnboundedSender<(J, Answer<R>)>,
    places: Arc<Semaphore>,
    size: u32,
}

impl<J, R> Clone for Queue<J, R> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), places: self.places.clone(), size: self.size }
    }
}

impl<J, R> Queue<J, R> {
    /// A queue for so many jobs that are not answered yet. What comes beyond is
    /// told `unavailable` at once, so nothing grows while PostgreSQL is away.
    pub(crate) fn new(size: u32) -> (Self, Jobs<J, R>) {
        let (jobs, taken) = mpsc::unbounded_channel();
        (Self { jobs, places: Arc::new(Semaphore::new(size as usize)), size }, taken)
    }

    pub(crate) fn enqueue(&self, job: J) -> Result<Waiting<R>, Failure> {
        let full = |_| Failure::unavailable();
        let place = self.places.clone().try_acquire_owned().map_err(full)?;
        let (to, answered) = oneshot::channel();
        let answer = Answer { to, _place: place };
        self.jobs.send((job, answer)).map_err(|_| Failure::unavailable())?;
        Ok(Waiting { answered })
    }

    /// Takes nothing more, and waits until all that was taken is answered.
    pub(crate) async fn drain(&self) {
        if let Ok(all) = self.places.acquire_many(self.size).await {
            self.places.close();
            drop(all);
        }
    }
}

/// Where the answer to a job goes.
pub(crate) struct Answer<R> {
    to: oneshot::Sender<Result<R, Failure>>,
    /// Given back when the job is answered.
    _place: OwnedSemaphorePermit,
}

impl<R> Answer<R> {
    pub(crate) fn send(self, result: Result<R, Failure>) {
        // Nobody waits any longer when the connection is gone: it is done.
        self.to.send(result).ok();
    }
}

/// A job that is not answered yet.
pub(crate) struct Waiting<R> {
    answered: oneshot::Receiver<Result<R, Failure>>,
}

impl<R> Waiting<R> {
    pub(crate) async fn answer(self) -> Result<R, Failure> {
        self.answered.await.unwrap_or_else(|_| Err(Failure::unavailable()))
    }
}

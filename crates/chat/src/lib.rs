//! The chat itself: who may do what, what is stored, and who is told.
//!
//! Both edges of the server, REST and Socket.IO, call the use cases of
//! [`Chat`]; each authorises, writes, commits, and only then publishes. What
//! the outside provides comes in through the traits of [`ports`], each with an
//! implementation for one machine in [`memory`].
//!
//! | module | use cases |
//! | --- | --- |
//! | [`accounts`] | register, log in, refresh, log out, profiles |
//! | [`rooms`] | create, rename, members, roles |
//! | [`messages`] | send, edit, delete, react, history, search, sync |
//! | [`receipts`] | delivered, read |
//! | [`offline`] | what a connection gets that was missed |
//! | [`presence`] | who is there; typing |
//! | [`writer`] | group commit of the sends of all sockets |
//! | `marks` | group commit of what was delivered and read, likewise |

use std::sync::Arc;

use starling_protocol::Failure;
use starling_repository::Repository;

pub mod accounts;
pub mod auth;
mod cache;
mod marks;
pub mod memory;
pub mod messages;
pub mod offline;
pub mod ports;
pub mod presence;
mod queue;
pub mod receipts;
pub mod rooms;
mod stripes;
mod typing;
pub mod validate;
pub mod writer;

pub use auth::{Auth, Identity};
pub use ports::{
    CachedPage, ConnectionId, Except, Fanout, Limits, PresenceStore, RoomCache, Target,
};

/// What the rules need to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Rooms of up to so many members have a receipt row for each recipient.
    pub receipt_rows_max_members: i64,
    /// Rooms that one user may be in. Two changes at once may pass it by one.
    pub max_rooms_per_user: i64,
}

/// The use cases. Cheap to clone: all parts are shared.
#[derive(Clone)]
pub struct Chat {
    pub(crate) repository: Repository,
    pub(crate) fanout: Arc<dyn Fanout>,
    pub(crate) presence: Arc<dyn PresenceStore>,
    pub(crate) limits: Arc<dyn Limits>,
    /// `None`: the newest page of a room is always read from the database.
    pub(crate) cache: Option<Arc<cache::Cache>>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) max_rooms_per_user: i64,
    pub(crate) writer: writer::Writer,
    pub(crate) marks: marks::Marks,
    pub(crate) typing: Arc<typing::Typing>,
    /// Changes of one room are published in the order in which they commit.
    pub(crate) room_order: Arc<stripes::Stripes>,
    /// Likewise the changes of one message.
    pub(crate) message_order: Arc<stripes::Stripes>,
}

impl Chat {
    /// Puts the parts together and starts the tasks that write, and the typing
    /// clock, which end when the last clone is dropped.
    #[must_use]
    pub fn new(
        repository: Repository,
        fanout: Arc<dyn Fanout>,
        presence: Arc<dyn PresenceStore>,
        limits: Arc<dyn Limits>,
        auth: Auth,
        settings: Settings,
    ) -> Self {
        let writer = writer::Writer::start(
            repository.clone(),
            fanout.clone(),
            settings.receipt_rows_max_members,
        );
        let marks = marks::Marks::start(
            repository.clone(),
            fanout.clone(),
            settings.receipt_rows_max_members,
        );
        Self {
            typing: typing::Typing::start(fanout.clone()),
            repository,
            fanout,
            presence,
            limits,
            cache: None,
            auth: Arc::new(auth),
            max_rooms_per_user: settings.max_rooms_per_user,
            writer,
            marks,
            room_order: Arc::default(),
            message_order: Arc::default(),
        }
    }

    /// Keeps the newest page of rooms where all instances find it. To be called
    /// before the first clone.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn RoomCache>) -> Self {
        self.writer.feed(cache.clone());
        self.cache = Some(Arc::new(cache::Cache::new(cache)));
        self
    }

    /// The repository, for health checks and the table of open sockets.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Tokens and passwords.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// No further sends, deliveries and reads are taken; resolves when those taken
    /// are answered.
    pub async fn drain(&self) {
        tokio::join!(self.writer.drain(), self.marks.drain());
    }
}

/// The answer for a room that does not exist, and for one that the caller is not
/// in: outside, nobody can tell which.
#[must_use]
pub fn no_room() -> Failure {
    Failure::not_found("There is no such room, or you are not in it.")
}

/// Turns a failure of the database into the public answer, and logs the cause.
pub(crate) fn storage(error: starling_repository::Error) -> Failure {
    // That it is away was logged when it went.
    if !matches!(error, starling_repository::Error::Away) {
        tracing::error!(error = &error as &dyn std::error::Error, "database failed");
    }
    metrics::counter!("starling_database_errors_total").increment(1);
    Failure::unavailable()
}

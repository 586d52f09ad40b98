//! Starling's PostgreSQL schema and every query: the only crate that knows sqlx.
//!
//! [`Repository`] is a plain, cheaply cloned struct over a connection pool. Each
//! of its methods is one unit of work: what it writes is committed when it
//! returns `Ok`, and nothing is written when it returns `Err`. Callers pass the
//! time and the ids of new things. What a caller must tell apart is a value
//! ([`CreateUser`], [`Append`], [`Change`] …); [`Error`] is left for a database
//! that can't serve and for rows that can't be.
//!
//! Locks are always taken in this order, so that no two units of work wait for
//! each other: rooms by id, then client ids, then memberships by id, then messages
//! by id, then receipts and reactions. Who may do what is decided elsewhere; here
//! only "is a member" is, because it must be checked under the room's lock.
//!
//! To add a query: put it into the file of its aggregate, name the columns,
//! convert rows at the border, test it in `tests/`, and refresh `.sqlx` with
//! `cargo sqlx prepare --workspace -- --all-targets`.

mod adopt;
mod append;
mod arrivals;
mod changes;
mod error;
mod logins;
mod marks;
mod members;
mod messages;
mod pool;
mod receipts;
mod rooms;
mod row;
mod search;
mod seed;
mod sockets;
mod users;

pub use adopt::{AdoptError, Adopted, Adoption, COMPAT_INSTALL, COMPAT_REMOVE, Say, State, Survey};
pub use append::{Append, NewMessage};
pub use arrivals::Arrival;
pub use changes::Change;
pub use error::{Error, Result};
pub use logins::Rotation;
pub use marks::{Advanced, Mark, MarkProgress, Marked, Moved, Outcome, Progress};
pub use members::RoomLock;
pub use messages::{Head, Page, RoomHead};
pub use pool::{PoolSettings, Repository};
pub use receipts::{OfflineCursor, ReadOutcome, Undelivered};
pub use search::SearchCursor;
pub use sockets::{OpenSocket, Swept};
pub use users::{CreateUser, Credentials, NewUser};

//! Starling's public contract as Rust types: one source for the server, the
//! OpenAPI document and the TypeScript types of the web app.
//!
//! No I/O lives here, and no rule either: only names, shapes, limits and the
//! table of error codes.
//!
//! - [`model`]: User, Room, Member, Message and what they are made of.
//! - [`event`]: payloads of the Socket.IO events, both directions.
//! - [`http`]: bodies and queries of the REST API.
//! - [`error`]: the codes, their HTTP status, and the error object.
//! - [`limits`]: lengths and sizes, in the units in which they are checked.
//! - [`parse`]: from untrusted JSON to a typed payload, naming the bad field.

pub mod error;
pub mod event;
pub mod http;
pub mod limits;
pub mod model;
pub mod parse;
pub mod room;
pub mod time;

pub use error::{Code, ErrorBody, Failure};
pub use model::*;
pub use time::Timestamp;

//! What can fail.

use socketioxide_core::adapter::errors::AdapterError;

use crate::driver::DriverError;
use crate::value::Malformed;

/// Why something could not be said to the other servers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The event is none that other servers could take.
    #[error("the packet can't be sent to other servers: {0}")]
    Packet(#[from] Malformed),
    /// Too many requests wait for answers.
    #[error("too many requests are waiting for other servers")]
    Busy,
    /// The namespace is open, or about to be: it can be only once.
    #[error("the namespace is open already")]
    Open,
    /// The namespace has not been opened, or is closed.
    #[error("the namespace is not open")]
    Closed,
}

impl From<Error> for AdapterError {
    fn from(error: Error) -> Self {
        Self(Box::new(error))
    }
}

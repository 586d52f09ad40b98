//! The lock of [`super::out`]; the model checker puts its own in its place.

pub(crate) use parking_lot::{Mutex, MutexGuard};

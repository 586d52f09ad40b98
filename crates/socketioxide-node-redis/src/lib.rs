//! socketioxide in a cluster of Node.js servers.
#![doc = include_str!("../README.md")]

pub mod adapter;
mod classic;
mod cluster;
pub mod driver;
mod error;
mod local;
mod namespace;
#[cfg(test)]
mod properties;
mod protocol;
mod sharded;
mod value;
#[cfg(test)]
mod vectors;

pub use adapter::NodeRedisAdapter;
pub use cluster::{
    Cluster, Description, Notice, Remote, ServerSideEvent, Settings, Stats, Verdict,
};
pub use driver::fred::FredDriver;
pub use driver::memory::{MemoryBroker, MemoryDriver};
pub use error::Error;
pub use local::{Acks, Local, SocketInfo};
pub use namespace::{Gathered, Namespace};
pub use protocol::{Event, Opts, Protocol};
pub use value::{Date, Malformed, Value};

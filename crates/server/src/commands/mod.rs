//! The commands behind the command line, but `serve`, which is [`crate::serve`].

pub mod adopt;
pub mod dev;
pub mod migrate;
pub mod seed;

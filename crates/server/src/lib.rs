//! The Starling server: a chat backend that speaks Socket.IO 4.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`config`] | the environment, parsed once |
//! | [`telemetry`] | logs |
//! | [`transport`] | connections, the Socket.IO engine and its traps |
//! | [`gateway`] | the Socket.IO edge: events |
//! | [`api`] | the HTTP edge: REST, health, metrics, the web app |
//! | [`serve`] | the server's life |
//! | [`cli`], [`commands`] | the command line |
//! | [`dev_postgres`] | a private PostgreSQL for `starling dev` |

pub mod api;
pub mod cli;
pub mod commands;
pub mod config;
pub mod dev_postgres;
pub mod gateway;
pub mod serve;
pub mod sessions;
pub mod telemetry;
pub mod transport;

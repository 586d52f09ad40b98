//! The Socket.IO edge: connects, events and their answers. One file an event
//! family; each turns a payload into a use case of [`starling_chat::Chat`].

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use serde_json::json;
use socketioxide_wire::Outlet;
use starling_chat::{Chat, Identity};
use starling_protocol::event::{EventError, ServerEvent, SessionReady, SessionRevoked, client};
use starling_protocol::{Code, Failure, Timestamp};
use starling_repository::Arrival;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{Instrument as _, Span, debug_span};

use crate::config::Config;
use crate::sessions::Sessions;
use crate::transport::engine::{App, count_connect};
use crate::transport::hub::{Hub, Link};
use crate::transport::inbox::{Event, Reply};

mod messages;
mod offline;
mod presence;
mod rooms;

/// How long CONNECT may wait for the database: some clients give up after 1 s.
const AUTHENTICATION: Duration = Duration::from_millis(700);
/// What takes longer waits for a database that fell silent.
const PATIENCE: Duration = Duration::from_secs(12);
/// Sends of one socket that may wait for their commit at once.
const SENDS_AT_ONCE: usize = 128;
/// Between the last words to a socket and the end of its connection.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The chat's side of the engine.
#[derive(Clone)]
pub struct Gateway {
    chat: Chat,
    hub: Arc<Hub>,
    sessions: Sessions,
    instance: Arc<str>,
    max_sockets_per_user: usize,
    turns: Arc<Turns>,
}

/// What thousands of sockets may do at once takes turns at the database, so that a
/// storm of them never has the whole pool: four tenths of it stay for everything else, and
/// for connections that are on their way back.
struct Turns {
    /// Tokens that are checked.
    checking: Semaphore,
    /// Sockets that are set up.
    connecting: Semaphore,
    /// Offline batches that are read.
    catching_up: Semaphore,
    /// Sockets that closed and have to be told of.
    leaving: Semaphore,
}

impl Turns {
    fn of(pool: usize) -> Self {
        let part = |of: usize| Semaphore::new((pool / of).max(1));
        Self { checking: part(8), connecting: part(4), catching_up: part(8), leaving: part(10) }
    }
}

async fn turn(of: &Semaphore) -> Result<SemaphorePermit<'_>, Failure> {
    of.acquire().await.map_err(|_| Failure::unavailable())
}

/// One connected socket and what belongs to it.
pub(crate) struct Connection {
    pub(crate) link: Arc<Link>,
    /// From the handshake to the end; only if somebody looks.
    span: Span,
    pub(crate) offline: Option<Arc<offline::Delivery>>,
}

/// What a handler gives back: the acknowledgement without `ok`.
pub(crate) type Answer = Result<serde_json::Value, Failure>;

impl Gateway {
    /// For an instance of this configuration.
    #[must_use]
    pub fn new(config: &Config, chat: Chat, hub: Arc<Hub>, sessions: Sessions) -> Self {
        Self {
            chat,
            hub,
            sessions,
            instance: config.instance_id.as_str().into(),
            max_sockets_per_user: config.max_sockets_per_user,
            turns: Arc::new(Turns::of(config.db_max_connections as usize)),
        }
    }

    /// How things stand for the user, whose socket is in all rooms from then on. The
    /// session may have ended between the check and the registration.
    async fn arrive(&self, link: &Arc<Link>) -> Result<Arrival, Failure> {
        let ended = || Failure::unauthorized("The session has ended.");
        let watch = self.hub.watch();
        let arrival = self.chat.arrival(link.who).await?.ok_or_else(ended)?;
        if watch.enter(link, arrival.rooms.iter().map(|room| room.room_id)) {
            return Ok(arrival);
        }
        drop(watch);
        // Something was said before the socket was in the room: it is now, so what is
        // not yet in this answer comes live.
        metrics::counter!("starling_arrivals_repeated_total").increment(1);
        let arrival = self.chat.arrival(link.who).await?.ok_or_else(ended)?;
        self.hub.watch().enter(link, arrival.rooms.iter().map(|room| room.room_id));
        Ok(arrival)
    }

    /// Sets a connection up: rooms first, then `session:ready`, then what was
    /// missed, so that every message comes either live or by offline delivery.
    async fn set_up(&self, link: &Arc<Link>) -> Result<Connection, Failure> {
        let turn = turn(&self.turns.connecting).await?;
        let user = link.who.user;
        let arrival = self.arrive(link).await?;
        let rooms = arrival.rooms.clone();
        let missed = self.chat.offline_delivery(user, arrival).await?;
        drop(turn);
        self.sessions.opened(link);
        let ready = ServerEvent::SessionReady(SessionReady {
            user_id: user,
            instance: self.instance.to_string(),
            server_time: Timestamp::now(),
            rooms: rooms.clone(),
        });
        let heads: HashMap<_, _> = rooms.iter().map(|r| (r.room_id, r.last_seq)).collect();
        self.hub.ready(link, &ready, &heads);
        self.chat.socket_opened(user, link.id, &rooms).await;
        let offline = missed.map(|d| offline::start(self.clone(), link.clone(), d));
        Ok(Connection { link: link.clone(), span: Span::current(), offline })
    }

    /// Too many sockets of one user: told, and closed below Socket.IO, so that the
    /// client comes back by itself when others of them are gone.
    async fn refuse(&self, link: &Link) {
        link.emit(&ServerEvent::Error(EventError {
            event: "connect".to_owned(),
            code: Code::RateLimited,
            message: "This user has too many connections.".to_owned(),
            retry_after_ms: Some(5000),
        }));
        tokio::time::sleep(LAST_WORDS).await;
        link.end();
    }

    async fn tear_down(&self, link: &Link) {
        self.hub.remove(link);
        let _turn = turn(&self.turns.leaving).await;
        if let Err(failure) = self.chat.socket_closed(link.who.user, link.id).await {
            let connection = link.id.0;
            tracing::warn!(%connection, %failure, "others could not be told that a user left");
        }
        self.sessions.closed(link);
    }

    /// Serves a connection's events in order. Sends may overlap: each is in the
    /// writer's queue before the next event is looked at, and they are answered
    /// in order; any other event waits until they are.
    async fn serve_events(&self, connection: &Connection, events: &mut Outlet) {
        let mut sends = FuturesOrdered::new();
        loop {
            let event = tokio::select! {
                biased;
                Some(()) = sends.next(), if !sends.is_empty() => continue,
                event = events.next(), if sends.len() < SENDS_AT_ONCE => event,
            };
            let Some(event) = event else { break };
            let event = Event::from(event);
            let watched = connection.watched(&event);
            if event.name == client::MESSAGE_SEND {
                let sending = self.send(connection, event.payload());
                let sending = sending.instrument(watched.span.clone()).await;
                let reply = event.reply;
                sends.push_back(async move {
                    let outcome = async { with("message", sending?.stored().await?) }.await;
                    watched.answered(&outcome);
                    answer(&connection.link, client::MESSAGE_SEND, reply, outcome);
                });
            } else {
                while sends.next().await.is_some() {}
                let span = watched.span.clone();
                self.handle(connection, event, &watched).instrument(span).await;
            }
        }
        while sends.next().await.is_some() {}
    }

    async fn handle(&self, connection: &Connection, event: Event, watched: &Watched) {
        let link = &connection.link;
        let name = &event.name;
        // A handler that panics is our fault; the client gets an answer all the
        // same, and the socket lives on.
        let handler =
            AssertUnwindSafe(self.dispatch(connection, name, event.payload())).catch_unwind();
        let outcome = match tokio::time::timeout(PATIENCE, handler).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                tracing::error!(event = known(name), connection = %link.id.0, "a handler panicked");
                Err(Failure::unavailable())
            }
            Err(_) => Err(Failure::unavailable()),
        };
        watched.answered(&outcome);
        answer(link, name, event.reply, outcome);
    }

    async fn dispatch(&self, connection: &Connection, name: &str, payload: &str) -> Answer {
        match name {
            client::MESSAGE_DELIVERED => self.delivered(connection, payload).await,
            client::MESSAGE_READ => self.read(connection, payload).await,
            client::MESSAGE_EDIT => self.edit(connection, payload).await,
            client::MESSAGE_DELETE => self.delete(connection, payload).await,
            client::REACTION_ADD => self.add_reaction(connection, payload).await,
            client::REACTION_REMOVE => self.remove_reaction(connection, payload).await,
            client::TYPING_START => self.typing(connection, payload, true).await,
            client::TYPING_STOP => self.typing(connection, payload, false).await,
            client::PRESENCE_SET => self.set_presence(connection, payload).await,
            client::PRESENCE_QUERY => self.query_presence(connection, payload).await,
            client::ROOM_JOIN => self.join(connection, payload).await,
            client::ROOM_LEAVE => self.leave(connection, payload).await,
            client::ROOM_SYNC => self.sync(connection, payload).await,
            _ => Err(Failure::field("event", "is not an event that this server knows")),
        }
    }
}

/// One event while it is served: its span, and one line about it at `debug`.
struct Watched {
    span: Span,
    began: Instant,
}

impl Connection {
    fn watched(&self, event: &Event) -> Watched {
        let (name, connection) = (known(&event.name), self.link.id.0);
        // A trace of its own: connections last for hours.
        let span = debug_span!(parent: None, "event", event = name, %connection);
        if !span.is_none() {
            span.follows_from(&self.span);
        }
        Watched { span, began: Instant::now() }
    }
}

impl Watched {
    fn answered(&self, outcome: &Answer) {
        self.span.in_scope(|| {
            let micros = self.began.elapsed().as_micros() as u64;
            tracing::debug!(result = result(outcome), micros, "event");
        });
    }
}

fn result(outcome: &Answer) -> &'static str {
    outcome.as_ref().map_or_else(|failure| failure.code.as_str(), |_| "ok")
}

fn answer(link: &Link, name: &str, reply: Reply, outcome: Answer) {
    let (event, result) = (known(name), result(&outcome));
    metrics::counter!("starling_events_total", "event" => event, "result" => result).increment(1);
    match outcome {
        Ok(mut body) => {
            if let Some(map) = body.as_object_mut() {
                map.insert("ok".to_owned(), json!(true));
            }
            reply.ok(link, &body);
        }
        Err(failure) => reply.failed(link, name, failure),
    }
}

/// The events that clients may send.
pub(crate) const EVENTS: [&str; 14] = [
    client::MESSAGE_SEND,
    client::MESSAGE_DELIVERED,
    client::MESSAGE_READ,
    client::MESSAGE_EDIT,
    client::MESSAGE_DELETE,
    client::REACTION_ADD,
    client::REACTION_REMOVE,
    client::TYPING_START,
    client::TYPING_STOP,
    client::PRESENCE_SET,
    client::PRESENCE_QUERY,
    client::ROOM_JOIN,
    client::ROOM_LEAVE,
    client::ROOM_SYNC,
];

/// Names for metrics and the log: what clients invent is one.
fn known(name: &str) -> &'static str {
    EVENTS.into_iter().find(|known| *known == name).unwrap_or("unknown")
}

/// An acknowledgement with one field.
pub(crate) fn with(field: &str, value: impl Serialize) -> Answer {
    Ok(json!({ field: value }))
}

/// An acknowledgement that only says yes.
pub(crate) fn yes() -> Answer {
    Ok(json!({}))
}

impl App for Gateway {
    async fn authenticate(&self, token: Option<String>) -> Option<Identity> {
        let token = token?;
        let auth = self.chat.auth();
        let who = auth.claims(&token).ok()?;
        let checked = async {
            let _turn = turn(&self.turns.checking).await?;
            auth.identify(self.chat.repository(), &token).await
        };
        match tokio::time::timeout(AUTHENTICATION, checked).await {
            Ok(Err(failure)) if failure.code == Code::Unauthorized => None,
            // When the database can't say, the signature is good for CONNECT: a
            // refusal would keep the client from ever coming back. The set-up
            // asks again.
            _ => Some(who),
        }
    }

    async fn serve(&self, link: Arc<Link>, mut events: Outlet) {
        if self.hub.sockets_of(link.who.user) > self.max_sockets_per_user {
            count_connect("too_many");
            self.refuse(&link).await;
            self.hub.remove(&link);
            return;
        }
        let (connection, request) = (link.id.0, link.request_id());
        let span =
            debug_span!(parent: None, "connection", %connection, request, user = %link.who.user);
        let began = Instant::now();
        let set_up = tokio::time::timeout(PATIENCE, self.set_up(&link).instrument(span.clone()));
        let set_up = set_up.await.unwrap_or_else(|_| Err(Failure::unavailable()));
        let result = match &set_up {
            Ok(_) => "ok",
            Err(failure) if failure.code == Code::Unauthorized => "unauthorized",
            Err(_) => "unavailable",
        };
        count_connect(result);
        let micros = began.elapsed().as_micros() as u64;
        span.in_scope(|| tracing::debug!(result, micros, "connect"));
        match set_up {
            Ok(connection) => {
                self.serve_events(&connection, &mut events).await;
            }
            Err(failure) if failure.code == Code::Unauthorized => {
                let reason = "session_ended".to_owned();
                link.revoke(&ServerEvent::SessionRevoked(SessionRevoked { reason }));
            }
            // Closed below Socket.IO, so that the client comes back by itself.
            Err(_) => link.end(),
        }
        self.tear_down(&link).await;
        span.in_scope(|| tracing::debug!("the connection ended"));
    }
}

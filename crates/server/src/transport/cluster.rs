//! Other servers, by Socket.IO's own Redis adapter protocol: this instance is one
//! more server of a Node.js cluster.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, future};
use metrics::Histogram;
use socketioxide_node_redis::{
    Acks, Args, Cluster, Event, Local, Namespace, Opts, SocketInfo, Value,
};
use socketioxide_wire::Frame;
use starling_protocol::event::server;
use starling_protocol::{MessageId, RoomId};

use super::audience::{Audience, Key};
use super::hub::{About, Hub, Link, Published, Relay};

/// Acknowledgements that another server asks for without saying for how long.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Joins the cluster.
///
/// # Errors
/// When Redis can't be subscribed to.
pub async fn join(cluster: &Cluster, hub: &Arc<Hub>) -> anyhow::Result<()> {
    let remote_delivery = metrics::histogram!("starling_remote_delivery_seconds");
    let here = Arc::new(Here { hub: Arc::downgrade(hub), remote_delivery });
    let namespace = Namespace::open(cluster, "/", here).await?;
    hub.relay(Arc::new(Others { namespace }));
    Ok(())
}

/// The way to the other servers.
struct Others {
    namespace: Namespace,
}

impl Relay for Others {
    fn broadcast(&self, frame: &Frame, to: &Audience) {
        // Nothing of the chat's has attachments.
        let Some(json) = frame.json() else { return };
        let sent = Value::from_json(json)
            .and_then(|data| match data {
                Value::Array(data) => Event::from_data(data),
                _ => Event::from_data(Vec::new()),
            })
            .map(|event| self.namespace.broadcast(event, &to.into()));
        match sent {
            Ok(Ok(())) => {}
            // Counted; what is lost so is found by the others' own looking.
            Ok(Err(error)) => tracing::debug!(%error, "a broadcast did not leave this instance"),
            Err(error) => tracing::error!(%error, "an event that other servers can't take"),
        }
    }

    fn join(&self, who: Key, room: Key) {
        self.namespace.join(Opts::room(who.name()), vec![room.name()]).ok();
    }

    fn leave(&self, who: Key, room: Key) {
        self.namespace.leave(Opts::room(who.name()), vec![room.name()]).ok();
    }

    fn disconnect(&self, who: Key) {
        self.namespace.disconnect(Opts::room(who.name()), false).ok();
    }
}

/// The sockets of this instance, for the other servers.
struct Here {
    // The hub holds the relay, and that the namespace, and that this.
    hub: Weak<Hub>,
    remote_delivery: Histogram,
}

impl Here {
    fn select(&self, opts: &Opts) -> Vec<Arc<Link>> {
        self.hub.upgrade().map_or_else(Vec::new, |hub| hub.select(&opts.into()))
    }
}

fn keys(rooms: &[String]) -> Vec<Key> {
    rooms.iter().map(|room| Key::parse(room)).collect()
}

/// What the hub has to know of an event that another server published.
fn about(event: &Event<'_>) -> About {
    if event.name() == Some(server::MESSAGE_UPDATED) {
        let id = event.args().first().and_then(|message| message.get("id")?.as_str()?.parse().ok());
        return id.map_or(About::Other, |id| About::Change { id: MessageId(id), elsewhere: true });
    }
    let (field, place): (_, fn(RoomId, i64) -> About) = match event.name() {
        Some(server::MESSAGE_NEW) => (("roomId", "seq"), About::Message),
        Some(server::ROOM_NEW) => (("id", "lastSeq"), About::Room),
        _ => return About::Other,
    };
    let number = |key| event.args().first()?.get(key)?.as_u64();
    let room = number(field.0).and_then(|id| i32::try_from(id).ok());
    let seq = number(field.1).and_then(|seq| i64::try_from(seq).ok());
    match (room, seq) {
        (Some(room), Some(seq)) => place(RoomId(room), seq),
        _ => About::Other,
    }
}

/// How long ago the message that an event tells of was made, if it is a new one.
fn stored_ago(event: &Event<'_>) -> Option<Duration> {
    if event.name() != Some(server::MESSAGE_NEW) {
        return None;
    }
    let made = event.args().first()?.get("createdAt")?.as_str()?;
    let made = chrono::DateTime::parse_from_rfc3339(made).ok()?;
    // Clocks may differ: what is not made yet is made now.
    Some((chrono::Utc::now().signed_duration_since(made)).to_std().unwrap_or_default())
}

/// An event of another server, encoded for the sockets here.
pub(super) fn published(event: Event<'_>, volatile: bool) -> Option<Published> {
    let about = about(&event);
    let name = event.data().first().map(name_of).unwrap_or_default();
    let droppable = volatile || matches!(&*name, server::TYPING_UPDATE | server::PRESENCE_UPDATE);
    match Frame::event("/", &name, Args::of(event)) {
        Ok(frame) => {
            let frame = if droppable { frame.droppable() } else { frame };
            Some(Published { frame, about })
        }
        Err(error) => {
            tracing::warn!(%error, name, "an event of another server was ignored");
            None
        }
    }
}

impl Local for Here {
    fn broadcast(&self, _: Option<&str>, event: Event<'_>, opts: &Opts) {
        let Some(hub) = self.hub.upgrade() else { return };
        let stored = stored_ago(&event);
        if let Some(published) = published(event, opts.volatile) {
            let began = Instant::now();
            hub.publish_here(published, opts.into());
            if let Some(stored) = stored {
                self.remote_delivery.record(stored + began.elapsed());
            }
        }
    }

    fn broadcast_with_ack(
        &self,
        event: Event<'_>,
        opts: &Opts,
        timeout: Option<Duration>,
    ) -> (u64, Acks) {
        let name = event.data().first().map(name_of).unwrap_or_default();
        let args = Args::of(event);
        let wait = timeout.unwrap_or(ACK_TIMEOUT);
        let asked: FuturesUnordered<_> = self
            .select(opts)
            .into_iter()
            .filter_map(|link| link.ask::<_, (serde_json::Value,)>(&name, &args, wait))
            .map(|answer| async move { acknowledged(answer.await) })
            .collect();
        let count = asked.len() as u64;
        (count, asked.filter_map(future::ready).boxed())
    }

    fn sockets(&self, opts: &Opts) -> Vec<SocketInfo> {
        let Some(hub) = self.hub.upgrade() else { return Vec::new() };
        let links = hub.select(&opts.into());
        links.iter().map(|link| info(&hub, link)).collect()
    }

    fn rooms(&self) -> Vec<String> {
        self.hub.upgrade().map_or_else(Vec::new, |hub| hub.room_names())
    }

    fn has_room(&self, room: &str) -> bool {
        self.hub.upgrade().is_some_and(|hub| hub.has(&Key::parse(room)))
    }

    fn join(&self, opts: &Opts, rooms: &[String]) {
        if let Some(hub) = self.hub.upgrade() {
            hub.join_here(&opts.into(), &keys(rooms));
        }
    }

    fn leave(&self, opts: &Opts, rooms: &[String]) {
        if let Some(hub) = self.hub.upgrade() {
            hub.leave_here(&opts.into(), &keys(rooms));
        }
    }

    fn disconnect(&self, opts: &Opts, close: bool) {
        for link in self.select(opts) {
            link.disconnect();
            if close {
                link.end();
            }
        }
    }
}

/// JavaScript allows numbers as names.
fn name_of(value: &Value<'_>) -> String {
    value.as_str().map_or_else(|| value.json(), str::to_owned)
}

/// The first argument; nothing for a client that did not answer. An answer of a
/// shape that this server can't read is one all the same.
fn acknowledged(
    answer: Result<(serde_json::Value,), socketioxide::AckError>,
) -> Option<Value<'static>> {
    match answer {
        Ok((value,)) => {
            let text = value.to_string();
            Value::from_json(&text).map(Value::into_owned).ok()
        }
        Err(socketioxide::AckError::Decode(_)) => Some(Value::Undefined),
        Err(_) => None,
    }
}

fn info(hub: &Hub, link: &Link) -> SocketInfo {
    let request = link.request();
    let text = |text: &str| Value::from(text.to_owned());
    let query = request.uri.query().unwrap_or_default();
    let query = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| {
        // Not the token, should a client have put it here.
        let value = if key == "token" { "" } else { value };
        (key.to_owned().into(), text(value))
    });
    let empty = || Value::Map(Vec::new());
    let handshake = vec![
        ("headers".into(), empty()),
        ("time".into(), text("")),
        ("address".into(), text("")),
        ("xdomain".into(), Value::Bool(false)),
        ("secure".into(), Value::Bool(false)),
        ("issued".into(), Value::Uint(0)),
        ("url".into(), text(request.uri.path())),
        ("query".into(), Value::Map(query.collect())),
        ("auth".into(), empty()),
    ];
    let data = vec![
        ("userId".into(), Value::Uint(u64::try_from(link.who.user.0).unwrap_or_default())),
        ("sessionId".into(), text(&link.who.session.to_string())),
    ];
    SocketInfo {
        id: String::from_utf8_lossy(&link.socket_id).into_owned(),
        handshake: Value::Map(handshake),
        rooms: hub.rooms_of(link),
        data: Value::Map(data),
    }
}

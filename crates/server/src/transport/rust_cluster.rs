//! Other servers, by socketioxide-redis: a cluster of Rust servers only.
//!
//! Its adapter keeps rooms of its own, by which it finds who gets what others send.
//! So the rooms of the hub are kept there a second time, under the sockets' public
//! ids; what it finds goes through the hub, as everything does. Joins and leaves
//! travel as events, since the adapter tells nobody of those that it makes.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, Fuse};
use parking_lot::Mutex;
use socketioxide::{AckError, SocketError};
use socketioxide_core::adapter::{
    AckStreamItem, BroadcastFlags, BroadcastIter, BroadcastOptions, CoreAdapter, CoreLocalAdapter,
    RemoteSocketData, Room, SocketEmitter,
};
use socketioxide_core::packet::{Packet, PacketData};
use socketioxide_core::parser::Parse;
use socketioxide_core::{Sid, Str, Uid, Value as PacketValue};
use socketioxide_node_redis::driver::{Channel, Driver as _, DriverError, Inbox, Received, Topics};
use socketioxide_node_redis::{Event, FredDriver, Notice, Value};
use socketioxide_parser_common::CommonParser;
use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};
use socketioxide_redis::{CustomRedisAdapter, RedisAdapterConfig, RedisAdapterCtr};
use socketioxide_wire::Frame;
use starling_protocol::{RoomId, UserId};
use tokio::sync::{broadcast, mpsc};

use super::audience::{Audience, Key};
use super::cluster::published;
use super::hub::{Hub, Link, Relay};

/// What waits to be sent to the others, and what of theirs waits to be delivered:
/// a second or two of a busy server. What is beyond is lost, and found again by
/// looking into PostgreSQL.
const QUEUE: usize = 16_384;
/// Bytes of messages between the connection and the adapter.
const QUEUE_BYTES: usize = 64 << 20;
/// Acknowledgements that another server asks for without saying for how long.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Sockets of a user enter a room: arguments are the ids of both.
const JOIN: &str = "starling:join";
/// Sockets of a user leave a room.
const LEAVE: &str = "starling:leave";

/// Joins the cluster, and says when something may have been missed.
///
/// # Errors
/// When Redis can't be subscribed to.
pub async fn join(
    driver: FredDriver,
    hub: &Arc<Hub>,
) -> anyhow::Result<broadcast::Receiver<Notice>> {
    // A listener that misses some looks as it would for any.
    let (notices, listener) = broadcast::channel(16);
    let bridge = Bridge { driver, subscribed: Arc::default(), notices: notices.clone() };
    let state = RedisAdapterCtr::new_with_driver(
        bridge,
        RedisAdapterConfig::new().with_stream_buffer(QUEUE),
    );
    let server = Uid::new();
    let (work, todo) = mpsc::channel(QUEUE);
    let mirror = || {
        let (work, notices) = (work.clone(), notices.clone());
        Arc::new(Mirror { links: Mutex::default(), work, notices })
    };
    let adapter = |mirror| {
        let sockets = Sockets { mirror, server, path: Str::from("/") };
        CustomRedisAdapter::new(&state, CoreLocalAdapter::new(sockets))
    };
    let here = mirror();
    let inward = Arc::new(adapter(here.clone()));
    inward.clone().init(|| {}).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    tokio::spawn(deliver(Arc::downgrade(hub), here.clone(), todo));

    // What goes out has its own adapter, without sockets: those here got it before.
    let outward = adapter(mirror());
    let (orders, ordered) = mpsc::channel(QUEUE);
    tokio::spawn(send(outward, ordered));
    hub.relay(Arc::new(Others { orders, mirror: here, inward }));
    Ok(listener)
}

/// What is told to the other servers.
enum Order {
    Emit(Packet, BroadcastOptions),
    Disconnect(BroadcastOptions),
}

/// In the order in which it was given.
async fn send(adapter: CustomRedisAdapter<Sockets, Bridge>, mut ordered: mpsc::Receiver<Order>) {
    while let Some(order) = ordered.recv().await {
        let sent = match order {
            Order::Emit(packet, options) => adapter.broadcast(packet, options).await,
            Order::Disconnect(options) => adapter.disconnect_socket(options).await,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a message did not leave this instance");
        }
    }
}

/// The way to the other servers.
struct Others {
    orders: mpsc::Sender<Order>,
    mirror: Arc<Mirror>,
    inward: Arc<CustomRedisAdapter<Sockets, Bridge>>,
}

impl Others {
    fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            metrics::counter!("starling_cluster_unpublished_total").increment(1);
        }
    }

    fn emit(&self, json: &str, to: &Audience) {
        let packet = Packet::event(Str::from("/"), PacketValue::Str(json.to_owned().into(), None));
        self.order(Order::Emit(packet, options(to)));
    }

    fn membership(&self, event: &str, who: &Key, room: &Key) {
        if let (Key::User(user), Key::Room(room)) = (who, room) {
            let json = serde_json::json!([event, user, room]);
            self.emit(&json.to_string(), &who.clone().into());
        }
    }
}

fn options(to: &Audience) -> BroadcastOptions {
    let names = |keys: &[Key]| keys.iter().map(|key| Room::Owned(key.name())).collect();
    let mut options = BroadcastOptions::default();
    options.rooms = names(&to.rooms);
    options.except = names(&to.except);
    options.add_flag(BroadcastFlags::Broadcast);
    options
}

fn sid(link: &Link) -> Option<Sid> {
    Sid::from_str(std::str::from_utf8(&link.socket_id).ok()?).ok()
}

impl Relay for Others {
    fn broadcast(&self, frame: &Frame, to: &Audience) {
        if let Some(json) = frame.json() {
            self.emit(json, to);
        }
    }

    fn join(&self, who: Key, room: Key) {
        self.membership(JOIN, &who, &room);
    }

    fn leave(&self, who: Key, room: Key) {
        self.membership(LEAVE, &who, &room);
    }

    fn disconnect(&self, who: Key) {
        self.order(Order::Disconnect(options(&who.into())));
    }

    fn entered(&self, link: &Arc<Link>, room: &Key) {
        if let Some(sid) = sid(link) {
            self.mirror.links.lock().entry(sid).or_insert_with(|| Arc::downgrade(link));
            self.inward.get_local().add_all(sid, [room.name()]);
        }
    }

    fn left(&self, link: &Link, room: &Key) {
        if let Some(sid) = sid(link) {
            self.inward.get_local().del(sid, [room.name()]);
        }
    }

    fn gone(&self, link: &Link) {
        if let Some(sid) = sid(link) {
            self.mirror.links.lock().remove(&sid);
            self.inward.get_local().del_all(sid);
        }
    }
}

/// What the adapter may know of the sockets here, and where it puts what they are
/// to get. It calls under a lock of its own rooms, which the hub waits for under its
/// lock: so nothing in here waits for the hub.
struct Mirror {
    links: Mutex<HashMap<Sid, Weak<Link>>>,
    work: mpsc::Sender<Work>,
    notices: broadcast::Sender<Notice>,
}

/// What some sockets get.
struct Work {
    to: Vec<Sid>,
    what: What,
}

enum What {
    /// A packet of the parser.
    Packet(Str),
    /// Their end.
    Disconnect,
}

impl Mirror {
    fn links(&self, sids: impl IntoIterator<Item = Sid>) -> Vec<Arc<Link>> {
        let links = self.links.lock();
        sids.into_iter().filter_map(|sid| links.get(&sid)?.upgrade()).collect()
    }

    fn put(&self, to: Vec<Sid>, what: What) {
        if !to.is_empty() && self.work.try_send(Work { to, what }).is_err() {
            metrics::counter!("starling_cluster_lost_total").increment(1);
            self.notices.send(Notice::Lost { nsp: "/".into(), messages: 1 }).ok();
        }
    }
}

async fn deliver(hub: Weak<Hub>, mirror: Arc<Mirror>, mut todo: mpsc::Receiver<Work>) {
    while let Some(Work { to, what }) = todo.recv().await {
        let Some(hub) = hub.upgrade() else { return };
        let links = mirror.links(to);
        match what {
            What::Packet(packet) => {
                // `2` and the list.
                let data = packet.strip_prefix('2').map(Value::from_json);
                let Some(Ok(Value::Array(data))) = data else { continue };
                let Ok(event) = Event::from_data(data) else { continue };
                if let Some((user, room, joins)) = membership(&event) {
                    let who = Audience::from(Key::User(user));
                    match joins {
                        true => hub.join_here(&who, &[Key::Room(room)]),
                        false => hub.leave_here(&who, &[Key::Room(room)]),
                    }
                } else if !links.is_empty()
                    && let Some(published) = published(event, false)
                {
                    let rooms = links.iter().map(|link| Key::Socket(link.socket_id)).collect();
                    hub.publish_here(published, Audience { rooms, except: Vec::new() });
                }
            }
            What::Disconnect => links.iter().for_each(|link| link.disconnect()),
        }
    }
}

fn membership(event: &Event<'_>) -> Option<(UserId, RoomId, bool)> {
    let joins = match event.name()? {
        JOIN => true,
        LEAVE => false,
        _ => return None,
    };
    let [user, room] = event.args() else { return None };
    let id = |value: &Value<'_>| i32::try_from(value.as_u64()?).ok();
    Some((UserId(id(user)?), RoomId(id(room)?), joins))
}

type Acks = Fuse<BoxStream<'static, AckStreamItem<AckError>>>;

/// The sockets here.
struct Sockets {
    mirror: Arc<Mirror>,
    server: Uid,
    path: Str,
}

impl SocketEmitter for Sockets {
    type AckError = AckError;
    type AckStream = Acks;

    fn get_all_sids(&self, filter: impl Fn(&Sid) -> bool) -> Vec<Sid> {
        self.mirror.links.lock().keys().copied().filter(filter).collect()
    }

    fn get_remote_sockets(&self, sids: BroadcastIter<'_>) -> Vec<RemoteSocketData> {
        let links = self.mirror.links.lock();
        sids.filter(|sid| links.contains_key(sid))
            .map(|id| RemoteSocketData { id, server_id: self.server, ns: self.path.clone() })
            .collect()
    }

    fn send_many(
        &self,
        sids: BroadcastIter<'_>,
        data: PacketValue,
    ) -> Result<(), Vec<SocketError>> {
        if let PacketValue::Str(packet, _) = data {
            self.mirror.put(sids.collect(), What::Packet(packet));
        }
        Ok(())
    }

    fn send_many_volatile(&self, sids: BroadcastIter<'_>, data: PacketValue) {
        self.send_many(sids, data).ok();
    }

    fn send_many_with_ack(
        &self,
        sids: BroadcastIter<'_>,
        packet: Packet,
        timeout: Option<Duration>,
    ) -> (Acks, u32) {
        let none = || (stream::empty().boxed().fuse(), 0);
        let PacketData::Event(PacketValue::Str(json, _), _) = &packet.inner else { return none() };
        let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(json) else { return none() };
        let Some((serde_json::Value::String(name), args)) = list.split_first() else {
            return none();
        };
        // Several arguments are a tuple to socketioxide; of those with an
        // acknowledgement the chat knows none with another number than one.
        let Some(arg) = args.first() else { return none() };
        let wait = timeout.unwrap_or(ACK_TIMEOUT);
        let asked: stream::FuturesUnordered<_> = self
            .mirror
            .links(sids)
            .into_iter()
            .filter_map(|link| {
                let answer = link.ask::<_, (serde_json::Value,)>(name, arg, wait)?;
                Some(async move {
                    let text = |(value,): (serde_json::Value,)| {
                        PacketValue::Str(serde_json::json!([value]).to_string().into(), None)
                    };
                    (sid(&link).unwrap_or(Sid::ZERO), answer.await.map(text))
                })
            })
            .collect();
        let count = u32::try_from(asked.len()).unwrap_or(u32::MAX);
        (asked.boxed().fuse(), count)
    }

    fn disconnect_many(&self, sids: Vec<Sid>) -> Result<(), Vec<SocketError>> {
        self.mirror.put(sids, What::Disconnect);
        Ok(())
    }

    fn path(&self) -> &Str {
        &self.path
    }

    fn parser(&self) -> impl Parse {
        CommonParser
    }

    fn server_id(&self) -> Uid {
        self.server
    }

    fn ack_timeout(&self) -> Duration {
        ACK_TIMEOUT
    }
}

/// The driver of this project for the adapter of that crate: it subscribes again by
/// itself, never waits, and counts what finds no place.
#[derive(Clone)]
struct Bridge {
    driver: FredDriver,
    subscribed: Arc<Mutex<HashMap<String, Inbox>>>,
    notices: broadcast::Sender<Notice>,
}

/// As socketioxide-redis's own driver over the same client does.
fn topics(channel: &str) -> Topics {
    Topics { prefix: None, channels: vec![Channel::Shard(channel.to_owned())] }
}

impl Driver for Bridge {
    type Error = DriverError;

    async fn publish(&self, channel: String, payload: Vec<u8>) -> Result<(), DriverError> {
        self.driver.publish(Channel::Shard(channel), payload.into())
    }

    async fn subscribe(
        &self,
        channel: String,
        size: usize,
    ) -> Result<MessageStream<ChanItem>, DriverError> {
        let (inbox, mut outlet) = Inbox::new(size, QUEUE_BYTES);
        let (sender, receiver) = mpsc::channel(1);
        let notices = self.notices.clone();
        // Ends with the inbox, or with the stream.
        tokio::spawn(async move {
            while let Some(received) = outlet.next().await {
                match received {
                    Received::Lost(messages) => {
                        notices.send(Notice::Lost { nsp: "/".into(), messages }).ok();
                    }
                    Received::Message { channel, payload } => {
                        if sender.send((channel, payload.to_vec())).await.is_err() {
                            return;
                        }
                    }
                    Received::Resubscribed => {
                        notices.send(Notice::Resubscribed { nsp: "/".into() }).ok();
                    }
                }
            }
        });
        self.driver.subscribe(topics(&channel), inbox.clone()).await?;
        self.subscribed.lock().insert(channel, inbox);
        Ok(MessageStream::new(receiver))
    }

    async fn unsubscribe(&self, channel: String) -> Result<(), DriverError> {
        let inbox = self.subscribed.lock().remove(&channel);
        match inbox {
            Some(inbox) => self.driver.unsubscribe(&topics(&channel), &inbox).await,
            None => Ok(()),
        }
    }

    async fn num_serv(&self, channel: &str) -> Result<u16, DriverError> {
        let count = self.driver.subscribers(&Channel::Shard(channel.to_owned())).await?;
        Ok(u16::try_from(count).unwrap_or(u16::MAX))
    }
}

//! What servers say to each other, whichever of the two dialects they speak.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::driver::{Channel, Topics};
use crate::value::{Malformed, TEXT, Value};
use crate::{classic, sharded};

/// An event with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// The name, then the arguments.
    data: Vec<Value<'a>>,
    /// The acknowledgement that clients are asked for. Only servers with
    /// connection state recovery set it in a broadcast.
    pub(crate) id: Option<u64>,
}

/// The number of the only packet that servers relay.
const EVENT: u64 = 2;

/// Names that `socket.io` keeps for itself: clients take a packet with one of them
/// for broken, and drop their connection.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

impl<'a> Event<'a> {
    /// An event of this name.
    #[must_use]
    pub fn new(name: impl Into<Cow<'a, str>>, args: impl IntoIterator<Item = Value<'a>>) -> Self {
        let data = std::iter::once(Value::Str(name.into())).chain(args).collect();
        Self { data, id: None }
    }

    /// An event from what a packet holds: the name, then the arguments.
    ///
    /// # Errors
    /// When it begins with no name that clients accept.
    pub fn from_data(data: Vec<Value<'a>>) -> Result<Self, Malformed> {
        match data.first() {
            Some(Value::Str(name)) if RESERVED.contains(&&**name) => {
                Err(Malformed::Shape("a reserved event name"))
            }
            // JavaScript allows numbers.
            Some(Value::Str(_) | Value::Uint(_) | Value::Int(_) | Value::Float(_)) => {
                Ok(Self { data, id: None })
            }
            _ => Err(Malformed::Shape("an event without a name")),
        }
    }

    /// The name, unless it is a number.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.data.first().and_then(Value::as_str)
    }

    /// The arguments.
    #[must_use]
    pub fn args(&self) -> &[Value<'a>] {
        self.data.get(1..).unwrap_or_default()
    }

    /// The name, then the arguments.
    #[must_use]
    pub fn data(&self) -> &[Value<'a>] {
        &self.data
    }

    pub(crate) fn into_data(self) -> Vec<Value<'a>> {
        self.data
    }

    /// The JSON of a Socket.IO packet, `["name",arg,…]`, and its attachments.
    #[must_use]
    pub fn packet(&self) -> (String, Vec<Bytes>) {
        let (mut out, mut attachments) = (String::with_capacity(TEXT), Vec::new());
        out.push('[');
        for (n, value) in self.data.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            value.to_json(&mut out, Some(&mut attachments));
        }
        out.push(']');
        (out, attachments)
    }

    /// The same, on its own feet.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        Event { data: self.data.into_iter().map(Value::into_owned).collect(), id: self.id }
    }
}

/// Which sockets, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opts {
    /// Those in any of these rooms; all, if there is none.
    pub rooms: Vec<String>,
    /// But not those in any of these.
    pub except: Vec<String>,
    /// It may be dropped for clients that are not ready for it.
    pub volatile: bool,
    /// How long acknowledgements are waited for.
    pub timeout: Option<Duration>,
}

impl Opts {
    /// The sockets in one room. Each socket is in a room of its own id.
    #[must_use]
    pub fn room(room: impl Into<String>) -> Self {
        Self { rooms: vec![room.into()], ..Self::default() }
    }

    /// Reads `rooms` and `except` and what matters of `flags`.
    pub(crate) fn read(opts: Option<Value<'_>>) -> Result<Self, Malformed> {
        let Some(opts @ Value::Map(_)) = opts else { return Err(Malformed::Shape("no opts")) };
        let flags = opts.get("flags");
        let flag = |name| flags.and_then(|flags| flags.get(name));
        Ok(Self {
            rooms: rooms(opts.get("rooms"))?,
            except: rooms(opts.get("except"))?,
            volatile: flag("volatile") == Some(&Value::Bool(true)),
            timeout: flag("timeout").and_then(Value::as_u64).map(Duration::from_millis),
        })
    }

    /// `{rooms, except}`, in the order in which Node.js writes them.
    pub(crate) fn selection(&self) -> Vec<(Cow<'static, str>, Value<'_>)> {
        vec![("rooms".into(), names(&self.rooms)), ("except".into(), names(&self.except))]
    }

    /// With `flags`.
    pub(crate) fn whole(&self) -> Value<'_> {
        let mut flags = Vec::new();
        if self.volatile {
            flags.push(("volatile".into(), Value::Bool(true)));
        }
        if let Some(timeout) = self.timeout {
            flags.push(("timeout".into(), millis(timeout)));
        }
        let mut pairs = self.selection();
        pairs.push(("flags".into(), Value::Map(flags)));
        Value::Map(pairs)
    }
}

fn millis(duration: Duration) -> Value<'static> {
    Value::Uint(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A list of rooms as a value.
pub(crate) fn names(rooms: &[String]) -> Value<'_> {
    Value::Array(rooms.iter().map(|room| Value::from(&**room)).collect())
}

/// Reads a list of rooms. JavaScript tells the room `1` from the room `"1"`; here
/// both are the room `1`.
pub(crate) fn rooms(value: Option<&Value<'_>>) -> Result<Vec<String>, Malformed> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => values
            .iter()
            .map(|room| match room {
                Value::Str(room) => Ok(room.clone().into_owned()),
                Value::Uint(_) | Value::Int(_) | Value::Float(_) => Ok(room.json()),
                // Left out, it would turn "nobody" into "everybody".
                _ => Err(Malformed::Shape("a room that is no name")),
            })
            .collect(),
        Some(_) => Err(Malformed::Shape("rooms that are no list")),
    }
}

/// What one server asks of all others.
#[derive(Debug, PartialEq)]
pub(crate) enum Request<'a> {
    /// The ids of sockets.
    SocketIds(Opts),
    /// The names of all rooms.
    AllRooms,
    /// Sockets enter rooms.
    Join(Opts, Vec<String>),
    /// Sockets leave rooms.
    Leave(Opts, Vec<String>),
    /// Sockets are disconnected; `close` ends their transport too.
    Disconnect(Opts, bool),
    /// All about sockets.
    Fetch(Opts),
    /// An event for the servers themselves.
    ServerSideEmit(Vec<Value<'a>>),
    /// An event that clients acknowledge.
    Broadcast(Event<'a>, Opts),
}

/// A request, and who asks.
#[derive(Debug, PartialEq)]
pub(crate) struct Asked<'a> {
    /// The member that asks. Emitters have none.
    pub(crate) uid: Option<Cow<'a, str>>,
    /// Names the answer; without it, none is expected but to a broadcast.
    pub(crate) id: Option<Cow<'a, str>>,
    /// Old servers name one socket, and only its owner answers.
    pub(crate) owner_of: Option<String>,
    /// What is asked.
    pub(crate) request: Request<'a>,
}

/// An answer of one server.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer<'a> {
    /// Ids, or whole sockets, by what was asked.
    Sockets(Vec<Value<'a>>),
    /// Names of rooms.
    Rooms(Vec<String>),
    /// To an event for servers.
    ServerSide(Value<'a>),
    /// So many clients of this server were asked for an acknowledgement.
    ClientCount(u64),
    /// What one of them answered.
    Ack(Value<'a>),
    /// Nothing but that it is done.
    Done,
}

/// What arrives.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming<'a> {
    Broadcast { from: Option<Cow<'a, str>>, event: Event<'a>, opts: Opts },
    Request(Asked<'a>),
    Answer { id: Cow<'a, str>, answer: Answer<'a> },
}

/// The dialect of a cluster: all its servers speak the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// `createAdapter` of `@socket.io/redis-adapter`, and `@socket.io/redis-emitter`.
    #[default]
    Classic,
    /// `createShardedAdapter`, which needs Redis 7.
    Sharded,
}

/// What one member, the adapter of one namespace on one server, is called, and how
/// it speaks.
#[derive(Debug, Clone)]
pub(crate) struct Dialect {
    pub(crate) protocol: Protocol,
    /// `key` of the classic, `channelPrefix` of the sharded adapter.
    pub(crate) key: String,
    /// With its slash.
    pub(crate) nsp: String,
    /// Of this member alone, new at every start.
    pub(crate) uid: String,
    /// Answers go to the channel of the one who asked (classic).
    pub(crate) private_answers: bool,
}

impl Dialect {
    /// What to subscribe to.
    pub(crate) fn topics(&self) -> Topics {
        let Self { key, nsp, uid, .. } = self;
        match self.protocol {
            Protocol::Classic => Topics {
                prefix: Some(format!("{key}#{nsp}#")),
                channels: vec![
                    Channel::Plain(format!("{key}-request#{nsp}#")),
                    Channel::Plain(format!("{key}-response#{nsp}#")),
                    Channel::Plain(format!("{key}-response#{nsp}#{uid}#")),
                ],
            },
            Protocol::Sharded => Topics {
                prefix: None,
                channels: vec![
                    Channel::Shard(format!("{key}#{nsp}#")),
                    Channel::Shard(format!("{key}#{nsp}#{uid}#")),
                ],
            },
        }
    }

    /// Where requests go, and whose subscribers are the servers.
    pub(crate) fn request_channel(&self) -> Channel {
        let Self { key, nsp, .. } = self;
        match self.protocol {
            Protocol::Classic => Channel::Plain(format!("{key}-request#{nsp}#")),
            Protocol::Sharded => Channel::Shard(format!("{key}#{nsp}#")),
        }
    }

    /// Where a broadcast goes. A single room has a channel of its own, which spares
    /// servers where nobody is in it the decoding.
    pub(crate) fn broadcast_channel(&self, opts: &Opts) -> Channel {
        let Self { key, nsp, .. } = self;
        match self.protocol {
            Protocol::Classic => Channel::Plain(match &opts.rooms[..] {
                [room] => format!("{key}#{nsp}#{room}#"),
                _ => format!("{key}#{nsp}#"),
            }),
            // Servers of every subscription mode listen here.
            Protocol::Sharded => Channel::Shard(format!("{key}#{nsp}#")),
        }
    }

    /// Where the answer to `asked` goes.
    pub(crate) fn answer_channel(&self, asked: &Asked<'_>) -> Channel {
        let Self { key, nsp, .. } = self;
        // What JavaScript makes of a missing one.
        let asker = asked.uid.as_deref().unwrap_or("undefined");
        let common = matches!(asked.request, Request::ServerSideEmit(_));
        match self.protocol {
            Protocol::Sharded => Channel::Shard(format!("{key}#{nsp}#{asker}#")),
            Protocol::Classic if self.private_answers && !common => {
                Channel::Plain(format!("{key}-response#{nsp}#{asker}#"))
            }
            Protocol::Classic => Channel::Plain(format!("{key}-response#{nsp}#")),
        }
    }

    /// The room whose channel this is, if it is one. Broadcasts only.
    pub(crate) fn room_of<'c>(&self, channel: &'c str) -> Option<&'c str> {
        if self.protocol != Protocol::Classic {
            return None;
        }
        let rest = channel.strip_prefix(&*self.key)?.strip_prefix('#')?;
        let mut room = rest.strip_prefix(&*self.nsp)?.strip_prefix('#')?.chars();
        // Node.js takes the last character off, whatever it is.
        room.next_back()?;
        Some(room.as_str())
    }

    pub(crate) fn broadcast(&self, event: Event<'_>, opts: &Opts) -> Bytes {
        match self.protocol {
            Protocol::Classic => classic::broadcast(self, event, opts),
            Protocol::Sharded => sharded::broadcast(self, None, event, opts),
        }
    }

    pub(crate) fn request(&self, id: Option<&str>, request: Request<'_>) -> Bytes {
        match self.protocol {
            Protocol::Classic => classic::request(self, id, request),
            Protocol::Sharded => sharded::request(self, id, request),
        }
    }

    pub(crate) fn answer(&self, id: Option<&str>, answer: Answer<'_>) -> Bytes {
        match self.protocol {
            Protocol::Classic => classic::answer(id, answer),
            Protocol::Sharded => sharded::answer(self, id, answer),
        }
    }

    /// Reads what came over a channel. `None` if it is not for this member.
    pub(crate) fn read<'a>(
        &self,
        channel: &str,
        payload: &'a Bytes,
    ) -> Result<Option<Incoming<'a>>, Malformed> {
        match self.protocol {
            Protocol::Classic => classic::read(self, channel, payload),
            Protocol::Sharded => sharded::read(self, channel, payload),
        }
    }
}

/// `{type, data}`, and the acknowledgement id if there is one; room for one more.
/// Binary stays where it is: the receiver makes attachments.
pub(crate) fn event_pairs(event: Event<'_>) -> Vec<(Cow<'static, str>, Value<'_>)> {
    let mut pairs = Vec::with_capacity(4);
    pairs.push(("type".into(), Value::Uint(EVENT)));
    pairs.push(("data".into(), Value::Array(event.data)));
    pairs.extend(event.id.map(|id| ("id".into(), Value::Uint(id))));
    pairs
}

/// JSON if it begins like an object, MessagePack otherwise.
pub(crate) fn either(payload: &Bytes) -> Result<Value<'_>, Malformed> {
    if payload.first() == Some(&b'{') {
        let text = std::str::from_utf8(payload).map_err(|_| Malformed::Json)?;
        Value::from_json(text)
    } else {
        Value::from_msgpack(payload)
    }
}

/// A text out of an object.
pub(crate) fn text<'a>(value: &mut Value<'a>, key: &str) -> Option<Cow<'a, str>> {
    match value.take(key)? {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

/// A packet of a broadcast. Only events: other kinds would end or confuse the
/// clients that they reach.
pub(crate) fn packet<'a>(mut packet: Value<'a>) -> Result<Event<'a>, Malformed> {
    if packet.get("type").and_then(Value::as_u64) != Some(EVENT) {
        return Err(Malformed::Shape("a packet that is no event"));
    }
    let Some(Value::Array(data)) = packet.take("data") else {
        return Err(Malformed::Shape("a packet without data"));
    };
    let mut event = Event::from_data(data)?;
    event.id = match packet.take("id") {
        None | Some(Value::Null) => None,
        Some(Value::Uint(id)) => Some(id),
        Some(_) => return Err(Malformed::Shape("an acknowledgement id that is no integer")),
    };
    Ok(event)
}

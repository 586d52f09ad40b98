//! The dialect of `createAdapter` of `@socket.io/redis-adapter` 8: broadcasts are
//! MessagePack, requests JSON, but for those that carry arguments of clients.

use bytes::Bytes;

use crate::protocol::{
    Answer, Asked, Dialect, Event, Incoming, Opts, Request, either, event_pairs, names, packet,
    rooms, text,
};
use crate::value::{Malformed, TEXT, Value};

/// The numbers of requests and answers.
mod kind {
    pub(super) const SOCKETS: u64 = 0;
    pub(super) const ALL_ROOMS: u64 = 1;
    pub(super) const JOIN: u64 = 2;
    pub(super) const LEAVE: u64 = 3;
    pub(super) const DISCONNECT: u64 = 4;
    pub(super) const FETCH: u64 = 5;
    pub(super) const SERVER_SIDE_EMIT: u64 = 6;
    pub(super) const BROADCAST: u64 = 7;
    pub(super) const CLIENT_COUNT: u64 = 8;
    pub(super) const ACK: u64 = 9;
}

/// `{type, data, id, nsp}`
fn event<'a>(dialect: &'a Dialect, event: Event<'a>) -> Value<'a> {
    let mut pairs = event_pairs(event);
    pairs.push(("nsp".into(), (&*dialect.nsp).into()));
    Value::Map(pairs)
}

fn msgpack(value: &Value<'_>) -> Bytes {
    let mut out = Vec::with_capacity(TEXT);
    value.to_msgpack(&mut out);
    out.into()
}

/// `[uid, packet, opts]`
pub(crate) fn broadcast(dialect: &Dialect, what: Event<'_>, opts: &Opts) -> Bytes {
    msgpack(&Value::Array(vec![(&*dialect.uid).into(), event(dialect, what), opts.whole()]))
}

/// An object without what is not there, keys in the order in which Node.js writes.
fn present<'a>(pairs: Vec<(&'static str, Option<Value<'a>>)>) -> Value<'a> {
    let pairs = pairs.into_iter();
    Value::Map(pairs.filter_map(|(key, value)| Some((key.into(), value?))).collect())
}

pub(crate) fn request(dialect: &Dialect, id: Option<&str>, request: Request<'_>) -> Bytes {
    let uid = Some(Value::from(&*dialect.uid));
    let id = id.map(Value::from);
    let selection = |opts: Opts| Some(Value::Map(opts.selection()).into_owned());
    let kind = |kind| Some(Value::Uint(kind));
    let json = |value: Value<'_>| Bytes::from(value.json());
    match request {
        Request::SocketIds(opts) => json(present(vec![
            ("uid", uid),
            ("requestId", id),
            ("type", kind(kind::SOCKETS)),
            ("rooms", Some(names(&opts.rooms))),
        ])),
        Request::AllRooms => {
            json(present(vec![("uid", uid), ("requestId", id), ("type", kind(kind::ALL_ROOMS))]))
        }
        Request::Join(opts, rooms) => json(present(vec![
            ("uid", uid),
            ("type", kind(kind::JOIN)),
            ("opts", selection(opts)),
            ("rooms", Some(names(&rooms))),
        ])),
        Request::Leave(opts, rooms) => json(present(vec![
            ("uid", uid),
            ("type", kind(kind::LEAVE)),
            ("opts", selection(opts)),
            ("rooms", Some(names(&rooms))),
        ])),
        Request::Disconnect(opts, close) => json(present(vec![
            ("uid", uid),
            ("type", kind(kind::DISCONNECT)),
            ("opts", selection(opts)),
            ("close", Some(Value::Bool(close))),
        ])),
        Request::Fetch(opts) => json(present(vec![
            ("uid", uid),
            ("requestId", id),
            ("type", kind(kind::FETCH)),
            ("opts", selection(opts)),
        ])),
        Request::ServerSideEmit(data) => json(present(vec![
            ("uid", uid),
            ("requestId", id),
            ("type", kind(kind::SERVER_SIDE_EMIT)),
            ("data", Some(Value::Array(data))),
        ])),
        Request::Broadcast(what, opts) => msgpack(&present(vec![
            ("uid", uid),
            ("requestId", id),
            ("type", kind(kind::BROADCAST)),
            ("packet", Some(event(dialect, what))),
            ("opts", Some(opts.whole())),
        ])),
    }
}

pub(crate) fn answer(id: Option<&str>, answer: Answer<'_>) -> Bytes {
    let id = id.map(Value::from);
    let json = |value: Value<'_>| Bytes::from(value.json());
    let kind = |kind| Some(Value::Uint(kind));
    // `undefined` is no entry.
    let defined = |value| (value != Value::Undefined).then_some(value);
    match answer {
        Answer::Sockets(sockets) => {
            json(present(vec![("requestId", id), ("sockets", Some(Value::Array(sockets)))]))
        }
        Answer::Rooms(rooms) => {
            json(present(vec![("requestId", id), ("rooms", Some(names(&rooms)))]))
        }
        Answer::ServerSide(data) => json(present(vec![
            ("type", kind(kind::SERVER_SIDE_EMIT)),
            ("requestId", id),
            ("data", defined(data)),
        ])),
        Answer::ClientCount(count) => json(present(vec![
            ("type", kind(kind::CLIENT_COUNT)),
            ("requestId", id),
            ("clientCount", Some(Value::Uint(count))),
        ])),
        Answer::Ack(value) => msgpack(&present(vec![
            ("type", kind(kind::ACK)),
            ("requestId", id),
            ("packet", defined(value)),
        ])),
        Answer::Done => json(present(vec![("requestId", id)])),
    }
}

pub(crate) fn read<'a>(
    dialect: &Dialect,
    channel: &str,
    payload: &'a Bytes,
) -> Result<Option<Incoming<'a>>, Malformed> {
    let rest = channel.strip_prefix(&*dialect.key).unwrap_or_default();
    if rest.starts_with('#') {
        read_broadcast(dialect, payload)
    } else if rest.starts_with("-request#") {
        read_request(dialect, either(payload)?)
    } else {
        read_answer(either(payload)?)
    }
}

fn read_broadcast<'a>(
    dialect: &Dialect,
    payload: &'a Bytes,
) -> Result<Option<Incoming<'a>>, Malformed> {
    let Value::Array(parts) = Value::from_msgpack(payload)? else {
        return Err(Malformed::Shape("a broadcast that is no list"));
    };
    let mut parts = parts.into_iter();
    let from = match parts.next() {
        Some(Value::Str(uid)) if uid == *dialect.uid => return Ok(None),
        Some(Value::Str(uid)) => Some(uid),
        _ => None,
    };
    // Without a packet Node.js does nothing either.
    let what = match parts.next() {
        None | Some(Value::Null | Value::Undefined) => return Ok(None),
        Some(packet) => packet,
    };
    // Emitters of old leave the main namespace out.
    match what.get("nsp") {
        None if dialect.nsp == "/" => {}
        Some(Value::Str(nsp)) if *nsp == *dialect.nsp => {}
        _ => return Ok(None),
    }
    let opts = Opts::read(parts.next())?;
    Ok(Some(Incoming::Broadcast { from, event: packet(what)?, opts }))
}

fn read_request<'a>(
    dialect: &Dialect,
    mut asked: Value<'a>,
) -> Result<Option<Incoming<'a>>, Malformed> {
    let Value::Map(_) = asked else { return Err(Malformed::Shape("a request that is no object")) };
    let Some(kind) = asked.get("type").and_then(Value::as_u64) else { return Ok(None) };
    let uid = text(&mut asked, "uid");
    // Joins, leaves and disconnects of this member have been applied at once.
    if uid.as_deref() == Some(&*dialect.uid) {
        return Ok(None);
    }
    let id = text(&mut asked, "requestId");
    let close = asked.get("close") == Some(&Value::Bool(true));
    let mut owner_of = None;
    // Before version 8 one socket was named, and one room.
    let mut legacy = |asked: &mut Value<'a>| {
        let Some(sid) = text(asked, "sid") else { return Err(Malformed::Shape("no opts")) };
        owner_of = Some(sid.clone().into_owned());
        Ok(Opts::room(sid))
    };
    let request = match kind {
        kind::SOCKETS => {
            let rooms = rooms(asked.get("rooms"))?;
            Request::SocketIds(Opts { rooms, ..Opts::default() })
        }
        kind::ALL_ROOMS => Request::AllRooms,
        kind::JOIN | kind::LEAVE => {
            let (opts, rooms) = if let Some(opts) = asked.take("opts") {
                let Some(list @ Value::Array(_)) = asked.get("rooms") else {
                    return Err(Malformed::Shape("no rooms"));
                };
                (Opts::read(Some(opts))?, rooms(Some(list))?)
            } else {
                let room = Value::Array(asked.take("room").into_iter().collect());
                (legacy(&mut asked)?, rooms(Some(&room))?)
            };
            match kind {
                kind::JOIN => Request::Join(opts, rooms),
                _ => Request::Leave(opts, rooms),
            }
        }
        kind::DISCONNECT => {
            let opts = match asked.take("opts") {
                None => legacy(&mut asked)?,
                opts => Opts::read(opts)?,
            };
            Request::Disconnect(opts, close)
        }
        kind::FETCH => Request::Fetch(Opts::read(asked.take("opts"))?),
        kind::SERVER_SIDE_EMIT => match asked.take("data") {
            Some(Value::Array(data)) => Request::ServerSideEmit(data),
            _ => return Err(Malformed::Shape("a server-side event without data")),
        },
        kind::BROADCAST => {
            let Some(what) = asked.take("packet") else {
                return Err(Malformed::Shape("no packet"));
            };
            let foreign = what.get("nsp").is_some_and(|nsp| nsp.as_str() != Some(&*dialect.nsp));
            if foreign {
                return Ok(None);
            }
            let mut event = packet(what)?;
            // Each server asks its clients under numbers of its own.
            event.id = None;
            Request::Broadcast(event, Opts::read(asked.take("opts"))?)
        }
        // A newer version's.
        _ => return Ok(None),
    };
    Ok(Some(Incoming::Request(Asked { uid, id, owner_of, request })))
}

fn read_answer(mut answer: Value<'_>) -> Result<Option<Incoming<'_>>, Malformed> {
    let Value::Map(_) = answer else { return Err(Malformed::Shape("an answer that is no object")) };
    let Some(id) = text(&mut answer, "requestId") else { return Ok(None) };
    let kind = answer.get("type").and_then(Value::as_u64);
    let answer = match kind {
        Some(kind::SERVER_SIDE_EMIT) => {
            Answer::ServerSide(answer.take("data").unwrap_or(Value::Undefined))
        }
        Some(kind::CLIENT_COUNT) => match answer.get("clientCount").and_then(Value::as_u64) {
            Some(count) => Answer::ClientCount(count),
            None => return Err(Malformed::Shape("no count")),
        },
        Some(kind::ACK) => Answer::Ack(answer.take("packet").unwrap_or(Value::Undefined)),
        _ => match (answer.take("sockets"), answer.get("rooms")) {
            (Some(Value::Array(sockets)), _) => Answer::Sockets(sockets),
            (_, list @ Some(Value::Array(_))) => Answer::Rooms(rooms(list)?),
            _ => Answer::Done,
        },
    };
    Ok(Some(Incoming::Answer { id, answer }))
}

//! The dialect of `createShardedAdapter` of `@socket.io/redis-adapter` 8: JSON, or
//! MessagePack when binary is inside, over the channels of Redis 7's shards.
//!
//! This member subscribes to no room of its own, and publishes where servers of
//! every `subscriptionMode` listen. So it works with Node.js servers whose
//! `subscriptionMode` is `static`: in the other modes they publish to channels of
//! rooms, and socketioxide tells no adapter which rooms there are.

use bytes::Bytes;

use crate::protocol::{
    Answer, Asked, Dialect, Event, Incoming, Opts, Request, either, event_pairs, names, packet,
    rooms, text,
};
use crate::value::{Malformed, TEXT, Value, object};

/// The numbers of messages (`MessageType` of `socket.io-adapter`).
mod kind {
    pub(super) const BROADCAST: u64 = 3;
    pub(super) const JOIN: u64 = 4;
    pub(super) const LEAVE: u64 = 5;
    pub(super) const DISCONNECT: u64 = 6;
    pub(super) const FETCH: u64 = 7;
    pub(super) const FETCHED: u64 = 8;
    pub(super) const SERVER_SIDE_EMIT: u64 = 9;
    pub(super) const SERVER_SIDE_ANSWER: u64 = 10;
    pub(super) const CLIENT_COUNT: u64 = 11;
    pub(super) const ACK: u64 = 12;
}

/// `{type, data, uid, nsp}`
fn message(dialect: &Dialect, kind: u64, data: Vec<(&'static str, Option<Value<'_>>)>) -> Bytes {
    let data = data.into_iter().filter_map(|(key, value)| Some((key.into(), value?)));
    let message = object([
        ("type", Value::Uint(kind)),
        ("data", Value::Map(data.collect())),
        ("uid", (&*dialect.uid).into()),
        ("nsp", (&*dialect.nsp).into()),
    ]);
    if message.has_binary() {
        let mut out = Vec::with_capacity(TEXT);
        message.to_msgpack(&mut out);
        out.into()
    } else {
        message.json().into()
    }
}

pub(crate) fn broadcast(
    dialect: &Dialect,
    id: Option<&str>,
    event: Event<'_>,
    opts: &Opts,
) -> Bytes {
    let packet = Value::Map(event_pairs(event));
    message(
        dialect,
        kind::BROADCAST,
        vec![
            ("packet", Some(packet)),
            ("requestId", id.map(Value::from)),
            ("opts", Some(opts.whole())),
        ],
    )
}

pub(crate) fn request(dialect: &Dialect, id: Option<&str>, request: Request<'_>) -> Bytes {
    let opts = |opts: Opts| ("opts", Some(opts.whole().into_owned()));
    let value_of = |id: Option<&str>| ("requestId", id.map(|id| Value::from(id.to_owned())));
    match request {
        Request::Join(which, rooms) => {
            message(dialect, kind::JOIN, vec![opts(which), ("rooms", Some(names(&rooms)))])
        }
        Request::Leave(which, rooms) => {
            message(dialect, kind::LEAVE, vec![opts(which), ("rooms", Some(names(&rooms)))])
        }
        Request::Disconnect(which, close) => message(
            dialect,
            kind::DISCONNECT,
            vec![opts(which), ("close", Some(Value::Bool(close)))],
        ),
        Request::SocketIds(which) | Request::Fetch(which) => {
            message(dialect, kind::FETCH, vec![opts(which), value_of(id)])
        }
        // The cluster adapter has no such request: sockets know their rooms.
        Request::AllRooms => {
            message(dialect, kind::FETCH, vec![opts(Opts::default()), value_of(id)])
        }
        Request::ServerSideEmit(data) => message(
            dialect,
            kind::SERVER_SIDE_EMIT,
            vec![value_of(id), ("packet", Some(Value::Array(data)))],
        ),
        Request::Broadcast(event, opts) => broadcast(dialect, id, event, &opts),
    }
}

pub(crate) fn answer(dialect: &Dialect, id: Option<&str>, answer: Answer<'_>) -> Bytes {
    let id = ("requestId", id.map(Value::from));
    let defined = |value| (value != Value::Undefined).then_some(value);
    let (kind, rest) = match answer {
        Answer::Sockets(sockets) => (kind::FETCHED, ("sockets", Some(Value::Array(sockets)))),
        Answer::Rooms(_) | Answer::Done => (kind::FETCHED, ("sockets", Some(Value::Array(vec![])))),
        Answer::ServerSide(value) => (kind::SERVER_SIDE_ANSWER, ("packet", defined(value))),
        Answer::ClientCount(count) => {
            (kind::CLIENT_COUNT, ("clientCount", Some(Value::Uint(count))))
        }
        Answer::Ack(value) => (kind::ACK, ("packet", defined(value))),
    };
    message(dialect, kind, vec![id, rest])
}

pub(crate) fn read<'a>(
    dialect: &Dialect,
    channel: &str,
    payload: &'a Bytes,
) -> Result<Option<Incoming<'a>>, Malformed> {
    let mut message = either(payload)?;
    let Value::Map(_) = message else { return Err(Malformed::Shape("no object")) };
    let Some(kind) = message.get("type").and_then(Value::as_u64) else { return Ok(None) };
    let uid = text(&mut message, "uid");
    let foreign = message.get("nsp").and_then(Value::as_str) != Some(&*dialect.nsp);
    if foreign || uid.as_deref() == Some(&*dialect.uid) {
        return Ok(None);
    }
    if !(kind::BROADCAST..=kind::ACK).contains(&kind) {
        // Heartbeats, which this adapter does not use, or a newer version's.
        return Ok(None);
    }
    let Some(mut data @ Value::Map(_)) = message.take("data") else {
        return Err(Malformed::Shape("no data"));
    };
    let id = text(&mut data, "requestId");
    let answer = match kind {
        kind::FETCHED => match data.take("sockets") {
            Some(Value::Array(sockets)) => Answer::Sockets(sockets),
            _ => return Err(Malformed::Shape("no sockets")),
        },
        kind::SERVER_SIDE_ANSWER => {
            Answer::ServerSide(data.take("packet").unwrap_or(Value::Undefined))
        }
        kind::CLIENT_COUNT => match data.get("clientCount").and_then(Value::as_u64) {
            Some(count) => Answer::ClientCount(count),
            None => return Err(Malformed::Shape("no count")),
        },
        kind::ACK => Answer::Ack(data.take("packet").unwrap_or(Value::Undefined)),
        // The private channel is for answers.
        _ if channel.ends_with(&format!("#{}#", dialect.uid)) => return Ok(None),
        _ => {
            let request = match kind {
                kind::BROADCAST => {
                    let Some(what) = data.take("packet") else {
                        return Err(Malformed::Shape("no packet"));
                    };
                    let (mut event, opts) = (packet(what)?, Opts::read(data.take("opts"))?);
                    if id.is_none() {
                        return Ok(Some(Incoming::Broadcast { from: uid, event, opts }));
                    }
                    event.id = None;
                    Request::Broadcast(event, opts)
                }
                kind::JOIN | kind::LEAVE => {
                    let opts = Opts::read(data.take("opts"))?;
                    let Some(list @ Value::Array(_)) = data.get("rooms") else {
                        return Err(Malformed::Shape("no rooms"));
                    };
                    let rooms = rooms(Some(list))?;
                    match kind {
                        kind::JOIN => Request::Join(opts, rooms),
                        _ => Request::Leave(opts, rooms),
                    }
                }
                kind::DISCONNECT => {
                    let close = data.get("close") == Some(&Value::Bool(true));
                    Request::Disconnect(Opts::read(data.take("opts"))?, close)
                }
                kind::FETCH => Request::Fetch(Opts::read(data.take("opts"))?),
                kind::SERVER_SIDE_EMIT => match data.take("packet") {
                    Some(Value::Array(data)) => Request::ServerSideEmit(data),
                    _ => return Err(Malformed::Shape("a server-side event without data")),
                },
                _ => return Ok(None),
            };
            return Ok(Some(Incoming::Request(Asked { uid, id, owner_of: None, request })));
        }
    };
    Ok(id.map(|id| Incoming::Answer { id, answer }))
}

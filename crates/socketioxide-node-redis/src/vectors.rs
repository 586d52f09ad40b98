//! What real Node.js servers said to each other (`tests/vectors/`), read, written
//! and answered by this crate.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::driver::{Channel, Driver, DriverError, Inbox, Topics};
use crate::local::{Acks, Local, SocketInfo};
use crate::protocol::{Dialect, Event, Incoming, Opts, Protocol, either};
use crate::value::{Malformed, Value};
use crate::{Cluster, MemoryBroker, MemoryDriver, Namespace, Settings};

#[derive(Deserialize)]
pub(crate) struct Vectors {
    clusters: HashMap<String, Node>,
    contexts: Vec<Vec<Row>>,
    pub(crate) vectors: Vec<Vector>,
    negative: Vec<Negative>,
    encode: Vec<Encoded>,
    decode: Vec<Decoded>,
    lifecycle: Vec<Lifecycle>,
}

/// A recorded cluster of two Node.js servers.
#[derive(Deserialize)]
struct Node {
    adapter: String,
    key: String,
    private: bool,
    mode: Option<String>,
    recovery: bool,
    /// By server and namespace.
    uids: HashMap<String, HashMap<String, String>>,
}

/// Server, namespace, label, id, rooms.
type Row = (String, String, String, String, Vec<serde_json::Value>);

#[derive(Deserialize)]
pub(crate) struct Vector {
    pub(crate) id: String,
    cluster: String,
    on: String,
    /// Sender, channel, payload.
    frames: Vec<(String, String, String)>,
    clients: HashMap<String, Vec<String>>,
    before: usize,
    after: Option<usize>,
    #[serde(default)]
    events: HashMap<String, Vec<(String, Option<serde_json::Value>)>>,
}

#[derive(Deserialize)]
struct Negative {
    adapter: String,
    case: String,
    channel: String,
    payload: String,
    frames: Vec<String>,
}

#[derive(Deserialize)]
struct Encoded {
    js: String,
    hex: Whole,
    frames: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Whole {
    Bytes(String),
    Start { len: usize, head: String },
}

#[derive(Deserialize)]
struct Decoded {
    hex: String,
    why: String,
    frames: Frames,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Frames {
    Sent(Vec<String>),
    Throws(String),
}

#[derive(Deserialize)]
struct Lifecycle {
    adapter: String,
    on_first_client: Vec<String>,
    on_last_client_gone: Vec<String>,
}

pub(crate) fn vectors() -> &'static Vectors {
    static ALL: OnceLock<Vectors> = OnceLock::new();
    ALL.get_or_init(|| {
        serde_json::from_str(include_str!("../tests/vectors/vectors.json")).unwrap()
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes();
    assert!(digits.len().is_multiple_of(2), "{text}");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON stands there as it is, all else in hex.
pub(crate) fn payload(text: &str) -> Bytes {
    if text.starts_with('{') { Bytes::copy_from_slice(text.as_bytes()) } else { unhex(text).into() }
}

/// What stands for the acknowledgement id in a frame that asks for one.
const ACK: &str = "?";

/// The frames that a client gets: `<` and a text, or `<#` and bytes in hex.
fn frames(event: &Event<'_>, nsp: &str, ack: bool) -> Vec<String> {
    let (json, attachments) = event.packet();
    let kind = match attachments.len() {
        0 => "2".to_owned(),
        n => format!("5{n}-"),
    };
    let nsp = if nsp == "/" { String::new() } else { format!("{nsp},") };
    let id = match event.id {
        _ if ack => ACK.to_owned(),
        Some(id) => id.to_string(),
        None => String::new(),
    };
    let text = format!("<4{kind}{nsp}{id}{json}");
    std::iter::once(text).chain(attachments.iter().map(|bytes| format!("<#{}", hex(bytes)))).collect()
}

/// The vector's own name, without that of its cluster.
fn name(vector: &Vector) -> &str {
    vector.id.rsplit('/').next().unwrap()
}

impl Vector {
    fn node(&self) -> &'static Node {
        &vectors().clusters[&self.cluster]
    }

    /// A member of this vector's cluster.
    fn dialect(&self, nsp: &str, uid: &str) -> Dialect {
        self.node().dialect(nsp, uid)
    }

    pub(crate) fn sharded(&self) -> bool {
        self.node().adapter == "sharded"
    }

    /// Channels and payloads.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = (&str, Bytes)> {
        self.frames.iter().map(|(_, channel, text)| (&**channel, payload(text)))
    }
}

impl Node {
    fn protocol(&self) -> Protocol {
        if self.adapter == "sharded" { Protocol::Sharded } else { Protocol::Classic }
    }

    fn dialect(&self, nsp: &str, uid: &str) -> Dialect {
        Dialect {
            protocol: self.protocol(),
            key: self.key.clone(),
            nsp: nsp.to_owned(),
            uid: uid.to_owned(),
            private_answers: self.private,
        }
    }

    fn uid(&self, server: &str, nsp: &str) -> &str {
        self.uids.get(server).and_then(|all| all.get(nsp)).map_or("none", |uid| uid)
    }
}

/// The namespace that a channel belongs to.
fn nsp_of<'c>(node: &Node, channel: &'c str) -> &'c str {
    let rest = channel.strip_prefix(&*node.key).unwrap();
    rest.split('#').nth(1).unwrap()
}

// ---- values ----

#[test]
fn node_values_are_read_printed_and_written() {
    let mut otherwise = 0;
    for Encoded { js, hex: whole, frames: expected } in &vectors().encode {
        let Whole::Bytes(digits) = whole else { continue };
        let bytes = Bytes::from(unhex(digits));
        let value = Value::from_msgpack(&bytes).unwrap_or_else(|error| panic!("{js}: {error}"));
        let event = Event::new("e", [value.clone()]);
        let expected: Vec<String> =
            expected.iter().flatten().map(|frame| format!("<{frame}")).collect();
        assert_eq!(frames(&event, "/", false), expected, "{js}");
        let mut again = Vec::new();
        value.to_msgpack(&mut again);
        if hex(&again) != *digits {
            assert!(kept_in_meaning(js), "{js}: {digits} became {}", hex(&again));
            otherwise += 1;
        }
    }
    assert_eq!(otherwise, 3);
}

#[test]
fn long_values_have_the_headers_that_node_writes() {
    let mut checked = 0;
    for Encoded { js, hex: whole, .. } in &vectors().encode {
        let Whole::Start { len, head } = whole else { continue };
        let value = match &**js {
            r#""x".repeat(255)"# => Value::from("x".repeat(255)),
            r#""x".repeat(256)"# => Value::from("x".repeat(256)),
            r#""x".repeat(65535)"# => Value::from("x".repeat(65535)),
            "Array(65535).fill(0)" => Value::Array(vec![Value::Uint(0); 65535]),
            "Buffer.alloc(255,1)" => Value::Bin(vec![1; 255].into()),
            "Buffer.alloc(65536,1)" => Value::Bin(vec![1; 65536].into()),
            _ => panic!("{js}"),
        };
        let mut out = Vec::new();
        value.to_msgpack(&mut out);
        assert_eq!((out.len(), hex(&out[..head.len() / 2])), (*len, head.clone()), "{js}");
        assert_eq!(Value::from_msgpack(&out.into()).as_ref(), Ok(&value));
        checked += 1;
    }
    assert_eq!(checked, 6);
}

#[test]
fn what_node_accepts_is_accepted() {
    for Decoded { hex, why, frames: expected } in &vectors().decode {
        let bytes = Bytes::from(unhex(hex));
        let value = Value::from_msgpack(&bytes);
        match expected {
            Frames::Throws(_) => assert!(value.is_err(), "{why}"),
            Frames::Sent(expected) => {
                let expected: Vec<_> = expected.iter().map(|frame| format!("<{frame}")).collect();
                let event = Event::new("e", [value.unwrap_or_else(|e| panic!("{why}: {e}"))]);
                assert_eq!(frames(&event, "/", false), expected, "{why}");
            }
        }
    }
}

// ---- what is written ----

/// What can't be written again to the letter, by the vector's own name, and why.
/// Beside these, emitters write `flags` before `except` and no `uid` in requests;
/// this crate is none.
const KEPT_IN_MEANING: [(&str, &str); 20] = [
    ("compress-false", COMPRESS),
    ("compress-true", COMPRESS),
    ("flags-combo", COMPRESS),
    ("socket-broadcast-flags", COMPRESS),
    ("ack-remote-socket", SINGLE),
    ("disconnect-remote-socket", SINGLE),
    ("join-remote-socket", SINGLE),
    ("remote-socket-emit", SINGLE),
    ("room-number", NUMBER),
    ("room-number-two", NUMBER),
    ("all-rooms", NUMBER),
    ("raw-allrooms", NUMBER),
    ("ghost-allrooms", NUMBER),
    ("val-hugeints", WRAPPED),
    ("val-date", "an invalid date travels as 1970, but in the longest form"),
    ("val-proto-key", "read from MessagePack, this key sets no entry in JavaScript either"),
    ("val-lone-surrogate", "half a surrogate pair is no text in Rust"),
    ("2**64", WRAPPED),
    ("1.7976931348623157e308", WRAPPED),
    ("-1e19", WRAPPED),
];
const COMPRESS: &str = "whether packets are compressed is each server's own choice here";
const SINGLE: &str = "`expectSingleResponse` means nothing to other servers";
const NUMBER: &str = "a number as the name of a room is its text here";
const WRAPPED: &str = "integers beyond 64 bits arrive wrapped, in forms longer than need be";

fn kept_in_meaning(what: &str) -> bool {
    KEPT_IN_MEANING.iter().any(|(which, _)| *which == what)
}

/// Encodes again what was read.
fn written(dialect: &Dialect, incoming: Incoming<'_>) -> Bytes {
    match incoming {
        Incoming::Broadcast { event, opts, .. } => dialect.broadcast(event, &opts),
        Incoming::Request(asked) => dialect.request(asked.id.as_deref(), asked.request),
        Incoming::Answer { id, answer } => dialect.answer(Some(&id), answer),
    }
}

#[test]
fn node_frames_are_written_again_to_the_letter() {
    let (mut same, mut otherwise) = (0, BTreeSet::new());
    for vector in &vectors().vectors {
        for (from, channel, text) in &vector.frames {
            if from == "raw" {
                continue;
            }
            let node = vector.node();
            let nsp = nsp_of(node, channel);
            let reader = vector.dialect(nsp, "reader");
            let bytes = payload(text);
            // Private channels are for answers of others: read them as who owns them.
            let incoming = reader
                .read(channel, &bytes)
                .unwrap_or_else(|error| panic!("{}: {error}", vector.id))
                .unwrap_or_else(|| panic!("{}: not for anybody", vector.id));
            let uid = match &incoming {
                Incoming::Broadcast { from, .. } => from.clone(),
                Incoming::Request(asked) => asked.uid.clone(),
                Incoming::Answer { .. } => None,
            };
            let writer = vector.dialect(nsp, uid.as_deref().unwrap_or(node.uid(from, nsp)));
            match &incoming {
                Incoming::Broadcast { opts, .. } => {
                    let ours = writer.broadcast_channel(opts);
                    // Servers in the mode `static` publish as this crate does.
                    if !vector.sharded() || node.mode.as_deref() == Some("static") {
                        assert_eq!(ours.name(), channel, "{}", vector.id);
                    }
                }
                Incoming::Request(_) => {
                    assert_eq!(writer.request_channel().name(), channel, "{}", vector.id);
                }
                Incoming::Answer { .. } => {}
            }
            let out = written(&writer, incoming);
            if out == bytes {
                same += 1;
                continue;
            }
            if from != "emitter" {
                let out = std::str::from_utf8(&out).map_or_else(|_| hex(&out), str::to_owned);
                assert!(kept_in_meaning(name(vector)), "{}:\n{text}\n{out}", vector.id);
                otherwise.insert(name(vector));
            }
            // The same in meaning: it reads like what it was made of.
            let first = reader.read(channel, &bytes).unwrap();
            let second = reader.read(channel, &out).unwrap();
            if from != "emitter" {
                assert_eq!(format!("{first:?}"), format!("{second:?}"), "{}", vector.id);
            }
        }
    }
    assert!(same >= 390, "{same}");
    // No exception more than there must be.
    let values = vectors().encode.iter().map(|encoded| &*encoded.js);
    let needed: BTreeSet<&str> = otherwise.into_iter().chain(values).collect();
    assert!(KEPT_IN_MEANING.iter().all(|(which, _)| needed.contains(which)), "{needed:?}");
}

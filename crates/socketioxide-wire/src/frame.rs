//! Messages as bytes: Socket.IO packets in Engine.IO packets in WebSocket frames.
//!
//! Socket.IO 5 and Engine.IO 4 text is made by the parser that the engine itself
//! uses; the WebSocket frame around it is RFC 6455 §5.2, unmasked and unfragmented
//! as servers send it.

use std::sync::Arc;

use base64::Engine as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use engineioxide::Str;
use serde::Serialize;
use socketioxide_core::Value;
use socketioxide_core::packet::Packet;
use socketioxide_core::parser::{Parse as _, ParserError};
use socketioxide_parser_common::CommonParser;

/// FIN and opcode 1.
const TEXT: u8 = 0x81;
/// FIN and opcode 2.
const BINARY: u8 = 0x82;
/// The Engine.IO packet type "message".
const MESSAGE: u8 = b'4';

/// The arguments of an event, for sockets that the engine has to write to.
type Payload = Arc<dyn erased_serde::Serialize + Send + Sync>;

/// An event, encoded once for all sockets of a namespace that get it.
///
/// Clones share the bytes.
#[derive(Clone)]
pub struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) name: Arc<str>,
    pub(crate) payload: Payload,
    pub(crate) droppable: bool,
}

impl Frame {
    /// Encodes an event of a namespace (`/` is the main one). `payload` is one
    /// argument, or several if it serializes as a tuple; `bytes::Bytes` in it
    /// travel as binary attachments.
    ///
    /// # Errors
    /// When the payload can't be serialized.
    pub fn event<T>(namespace: &str, name: &str, payload: T) -> Result<Self, ParserError>
    where
        T: Serialize + Send + Sync + 'static,
    {
        let bytes = event(namespace, name, &payload)?;
        Ok(Self { bytes, name: name.into(), payload: Arc::new(payload), droppable: false })
    }

    /// The same, but of no use when it comes late: it is dropped for sockets that
    /// have half of their limit waiting.
    #[must_use]
    pub fn droppable(mut self) -> Self {
        self.droppable = true;
        self
    }

    /// Whether it may be dropped for a slow reader.
    #[must_use]
    pub fn is_droppable(&self) -> bool {
        self.droppable
    }

    /// The name and the arguments as JSON, `["name",arg,…]`, if there are no
    /// attachments: for those who send it on by other ways.
    #[must_use]
    pub fn json(&self) -> Option<&str> {
        let seen = first(&self.bytes)?;
        if seen.len != self.bytes.len() {
            return None;
        }
        let packet = std::str::from_utf8(seen.payload).ok()?.strip_prefix("42")?;
        // A namespace other than the main one stands before the list.
        match packet.strip_prefix('/') {
            Some(rest) => rest.split_once(',').map(|(_, data)| data),
            None => Some(packet),
        }
    }

    /// What goes over the wire: WebSocket frames.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("name", &self.name).field("bytes", &self.bytes.len()).finish()
    }
}

/// The frames of an event.
pub(crate) fn event<T>(namespace: &str, name: &str, payload: &T) -> Result<Bytes, ParserError>
where
    T: Serialize + ?Sized,
{
    let value = CommonParser.encode_value(payload, Some(name))?;
    Ok(packet(Packet::event(Str::copy_from_slice(namespace), value)))
}

/// The frames of an acknowledgement.
pub(crate) fn ack<T>(namespace: &str, id: i64, payload: &T) -> Result<Bytes, ParserError>
where
    T: Serialize + ?Sized,
{
    let value = CommonParser.encode_value(payload, None)?;
    Ok(packet(Packet::ack(Str::copy_from_slice(namespace), value, id)))
}

fn packet(packet: Packet) -> Bytes {
    let (text, attachments) = match CommonParser.encode(packet) {
        Value::Str(text, attachments) => (text, attachments.unwrap_or_default()),
        Value::Bytes(bytes) => return message(BINARY, None, &bytes, 0).freeze(),
    };
    let rest = attachments.iter().map(|bytes| bytes.len() + HEADER_MAX).sum();
    let mut out = message(TEXT, Some(MESSAGE), text.as_bytes(), rest);
    for bytes in attachments {
        header(&mut out, BINARY, bytes.len());
        out.extend_from_slice(&bytes);
    }
    out.freeze()
}

/// A packet of a polling answer as a WebSocket frame: `b` begins binary in base64
/// (Engine.IO 4). `None` if that is broken.
pub(crate) fn from_packet(packet: &[u8]) -> Option<Bytes> {
    match packet.strip_prefix(b"b") {
        None => Some(message(TEXT, None, packet, 0).freeze()),
        Some(encoded) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
            Some(message(BINARY, None, &bytes, 0).freeze())
        }
    }
}

/// Bytes of the longest header of a server's frame.
const HEADER_MAX: usize = 10;

fn message(kind: u8, engine_type: Option<u8>, payload: &[u8], reserve: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER_MAX + 1 + payload.len() + reserve);
    header(&mut out, kind, payload.len() + usize::from(engine_type.is_some()));
    if let Some(byte) = engine_type {
        out.put_u8(byte);
    }
    out.extend_from_slice(payload);
    out
}

fn header(out: &mut BytesMut, kind: u8, len: usize) {
    out.put_u8(kind);
    // The shortest of three forms, as RFC 6455 asks for.
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=125), _) => out.put_u8(short),
        (_, Ok(middle)) => {
            out.put_u8(126);
            out.put_u16(middle);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
}

/// A whole unmasked frame at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen<'a> {
    /// Whether this is an unfragmented text frame.
    pub(crate) text: bool,
    pub(crate) payload: &'a [u8],
    /// Bytes of the frame with its header.
    pub(crate) len: usize,
}

/// Looks at the first frame of what the engine writes; `None` if it is not whole.
pub(crate) fn first(bytes: &[u8]) -> Option<Seen<'_>> {
    let (&kind, &short) = (bytes.first()?, bytes.get(1)?);
    let (head, len): (usize, usize) = match short & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => {
            let len = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            (10, usize::try_from(len).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let end = head.checked_add(len)?;
    Some(Seen { text: kind == TEXT, payload: bytes.get(head..end)?, len: end })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use tungstenite::protocol::frame::FrameSocket;
    use tungstenite::protocol::frame::coding::{Data, OpCode};

    use super::*;

    fn read(bytes: &[u8]) -> Vec<(OpCode, Vec<u8>)> {
        let mut socket = FrameSocket::new(std::io::Cursor::new(bytes.to_vec()));
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = socket.read(None) {
            frames.push((frame.header().opcode, frame.into_payload().to_vec()));
        }
        frames
    }

    #[test]
    fn events_and_acks_are_what_the_protocol_says() {
        let text = |bytes: Bytes| {
            let frames = read(&bytes);
            assert_eq!(frames.len(), 1);
            assert_eq!(frames[0].0, OpCode::Data(Data::Text));
            String::from_utf8(frames[0].1.clone()).unwrap()
        };
        assert_eq!(text(event("/", "a", &json!({"b": 1})).unwrap()), r#"42["a",{"b":1}]"#);
        assert_eq!(text(event("/chat", "a", &(1, "x")).unwrap()), r#"42/chat,["a",1,"x"]"#);
        assert_eq!(text(ack("/", 7, &json!({"ok": true})).unwrap()), r#"437[{"ok":true}]"#);
        assert_eq!(text(ack("/chat", 12, &1).unwrap()), "43/chat,12[1]");
        let raw = serde_json::value::RawValue::from_string(r#"{"z":1,"a":[2]}"#.into()).unwrap();
        let frame = Frame::event("/", "raw", raw).unwrap();
        assert_eq!(text(frame.bytes), r#"42["raw",{"z":1,"a":[2]}]"#);
    }

    #[test]
    fn the_json_of_a_frame_is_what_stands_in_it() {
        for namespace in ["/", "/chat"] {
            let frame = Frame::event(namespace, "a", json!({"b": [1]})).unwrap();
            assert_eq!(frame.json(), Some(r#"["a",{"b":[1]}]"#));
        }
        assert_eq!(Frame::event("/", "a", Bytes::from_static(b"x")).unwrap().json(), None);
    }

    #[test]
    fn attachments_follow_their_event() {
        let bytes = event("/", "file", &Bytes::from_static(b"\x00\xff")).unwrap();
        let frames = read(&bytes);
        assert_eq!(frames[0].1, br#"451-["file",{"_placeholder":true,"num":0}]"#);
        assert_eq!(frames[1], (OpCode::Data(Data::Binary), vec![0, 255]));
        assert_eq!(frames.len(), 2);
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_as_tungstenite_wrote_or_reads_it(
            sizes in proptest::collection::vec(prop_oneof![0..130_usize, 65_500..65_600_usize], 1..4),
        ) {
            let mut all = Vec::new();
            for size in &sizes {
                all.extend_from_slice(&message(TEXT, None, &vec![b'x'; *size], 0));
            }
            let theirs = read(&all);
            prop_assert_eq!(theirs.iter().map(|(_, p)| p.len()).collect::<Vec<_>>(), sizes.clone());
            let mut rest = &all[..];
            for size in sizes {
                let seen = first(rest).unwrap();
                prop_assert!(seen.text && seen.payload.len() == size);
                prop_assert!(first(&rest[..seen.len - 1]).is_none());
                rest = &rest[seen.len..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn looking_at_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(seen) = first(&bytes) {
                prop_assert!(seen.len <= bytes.len() && seen.payload.len() <= seen.len);
            }
        }
    }
}

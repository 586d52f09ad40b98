//! JavaScript values as they travel between servers.
//!
//! Node.js writes MessagePack in the dialect of notepack.io and JSON by
//! `JSON.stringify`. [`Value`] keeps what both can say apart (integers and floats,
//! text and bytes, `null` and `undefined`, dates) and prints JSON to the letter as
//! JavaScript does, so that a client can't tell which server it hangs on.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use rmp::Marker;
use rmp::encode::{self, ByteBuf};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Containers inside containers; `serde_json` stops at the same depth.
const DEPTH: usize = 128;
/// Elements that are made room for before any of them has been read.
const RESERVE: usize = 64;
/// Room for the text of a common message.
pub(crate) const TEXT: usize = 512;
/// Integers up to here are exact as a JavaScript number.
const EXACT: u64 = 1 << 53;

/// Why bytes from outside are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end too early, or a length in them is more than what is left.
    #[error("truncated")]
    Truncated,
    /// Something follows the value.
    #[error("trailing bytes")]
    Trailing,
    /// A byte that MessagePack does not know.
    #[error("a reserved byte")]
    Reserved,
    /// Nested more than 128 deep.
    #[error("nested too deep")]
    Deep,
    /// No JSON.
    #[error("no JSON")]
    Json,
    /// A value, but not of the shape that the protocol has at this place.
    #[error("not the right shape: {0}")]
    Shape(&'static str),
}

/// A moment, as the MessagePack timestamp extension holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// A JavaScript value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `undefined`: `null` in arrays, no entry at all in objects.
    Undefined,
    /// `true`, `false`
    Bool(bool),
    /// A negative integer.
    Int(i64),
    /// An integer that is not negative.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Str(Cow<'a, str>),
    /// A `Buffer`, `ArrayBuffer` or `Uint8Array`: an attachment at the client.
    Bin(Bytes),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object, each key once, in the order in which JavaScript walks it.
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
    /// A `Date`.
    Date(Date),
}

impl<'a> Value<'a> {
    /// Reads MessagePack as notepack.io does, where that makes sense: broken UTF-8
    /// is replaced, any scalar may be a key, unknown extensions are `[type, bytes]`.
    /// Text is borrowed; attachments share the buffer.
    ///
    /// # Errors
    /// When these are not the bytes of exactly one value. Nothing is allocated for
    /// a length that the bytes can't hold.
    pub fn from_msgpack(bytes: &'a Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader { all: bytes, at: 0 };
        let value = reader.value(0)?;
        if reader.at == bytes.len() { Ok(value) } else { Err(Malformed::Trailing) }
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_json(text: &'a str) -> Result<Self, Malformed> {
        serde_json::from_str(text).or_else(|_| {
            // `JSON.stringify` escapes half surrogates, which no Rust text can hold.
            let whole = replace_lone_surrogates(text).ok_or(Malformed::Json)?;
            let value: Value<'_> = serde_json::from_str(&whole).map_err(|_| Malformed::Json)?;
            Ok(value.into_owned())
        })
    }

    /// Reads the JSON of a Socket.IO packet, whose attachments stand apart.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn from_packet(text: &'a str, attachments: &[Bytes]) -> Result<Self, Malformed> {
        let mut value = Self::from_json(text)?;
        if !attachments.is_empty() {
            value.fill(attachments);
        }
        Ok(value)
    }

    /// Puts attachments where `{"_placeholder":true,"num":n}` stands.
    fn fill(&mut self, attachments: &[Bytes]) {
        match self {
            Self::Map(pairs) => {
                if let [(a, Self::Bool(true)), (b, Self::Uint(n))] = &pairs[..]
                    && a == "_placeholder"
                    && b == "num"
                    && let Some(bytes) = usize::try_from(*n).ok().and_then(|n| attachments.get(n))
                {
                    *self = Self::Bin(bytes.clone());
                } else {
                    pairs.iter_mut().for_each(|(_, value)| value.fill(attachments));
                }
            }
            Self::Array(values) => values.iter_mut().for_each(|value| value.fill(attachments)),
            _ => {}
        }
    }

    /// Appends MessagePack, byte for byte as notepack.io writes it.
    pub fn to_msgpack(&self, out: &mut Vec<u8>) {
        let mut buffer = ByteBuf::from_vec(std::mem::take(out));
        self.write(&mut buffer);
        *out = buffer.into_vec();
    }

    /// Appends MessagePack as `socket.io-msgpack-parser` writes it for clients: with
    /// an older notepack.io, which has extensions of its own for dates and
    /// `undefined`.
    pub(crate) fn to_client_msgpack(&self, out: &mut Vec<u8>) {
        let mut buffer = ByteBuf::from_vec(std::mem::take(out));
        self.write_for_client(&mut buffer);
        *out = buffer.into_vec();
    }

    fn write_for_client(&self, out: &mut ByteBuf) {
        match self {
            Self::Undefined => out.as_mut_vec().extend_from_slice(&[0xd4, 0, 0]),
            Self::Array(values) => {
                let _ = encode::write_array_len(out, count(values.len()));
                values.iter().for_each(|value| value.write_for_client(out));
            }
            Self::Map(pairs) => {
                let _ = encode::write_map_len(out, count(pairs.len()));
                for (key, value) in pairs {
                    let _ = encode::write_str(out, key);
                    value.write_for_client(out);
                }
            }
            Self::Date(date) => {
                let whole = date.seconds.saturating_mul(1000);
                let ms = whole.saturating_add(i64::from(date.nanos / 1_000_000));
                out.as_mut_vec().extend_from_slice(&[0xd7, 0]);
                out.as_mut_vec().extend_from_slice(&ms.to_be_bytes());
            }
            other => other.write(out),
        }
    }

    fn write(&self, out: &mut ByteBuf) {
        // Writing to memory can't fail: the errors are of a type without values.
        match self {
            Self::Null | Self::Undefined => {
                let _ = encode::write_nil(out);
            }
            Self::Bool(value) => {
                let _ = encode::write_bool(out, *value);
            }
            Self::Int(value) => {
                let _ = encode::write_sint(out, *value);
            }
            Self::Uint(value) => {
                let _ = encode::write_uint(out, *value);
            }
            Self::Float(value) => {
                let _ = encode::write_f64(out, *value);
            }
            Self::Str(value) => {
                let _ = encode::write_str(out, value);
            }
            Self::Bin(value) => {
                let _ = encode::write_bin(out, value);
            }
            Self::Array(values) => {
                let _ = encode::write_array_len(out, count(values.len()));
                values.iter().for_each(|value| value.write(out));
            }
            Self::Map(pairs) => {
                let there = || pairs.iter().filter(|(_, value)| *value != Self::Undefined);
                let _ = encode::write_map_len(out, count(there().count()));
                for (key, value) in there() {
                    let _ = encode::write_str(out, key);
                    value.write(out);
                }
            }
            Self::Date(date) => date.write(out),
        }
    }

    /// Appends JSON as `JSON.stringify` writes it. Attachments go to `attachments`,
    /// with a placeholder where they were; without that they become text, which is
    /// what `JSON.stringify` makes of a `Buffer`.
    pub fn to_json(&self, out: &mut String, mut attachments: Option<&mut Vec<Bytes>>) {
        match self {
            Self::Null | Self::Undefined => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Uint(value) if *value <= EXACT => push_integer(out, *value),
            Self::Int(value) if value.unsigned_abs() <= EXACT => {
                out.push('-');
                push_integer(out, value.unsigned_abs());
            }
            // JavaScript has no larger integers: it rounds them.
            #[allow(clippy::cast_precision_loss)]
            Self::Uint(value) => push_number(out, *value as f64),
            #[allow(clippy::cast_precision_loss)]
            Self::Int(value) => push_number(out, *value as f64),
            Self::Float(value) => push_number(out, *value),
            Self::Str(value) => push_text(out, value),
            Self::Bin(bytes) => match attachments {
                Some(attachments) => {
                    out.push_str("{\"_placeholder\":true,\"num\":");
                    push_integer(out, attachments.len() as u64);
                    out.push('}');
                    attachments.push(bytes.clone());
                }
                None => {
                    out.push_str("{\"type\":\"Buffer\",\"data\":[");
                    for (n, byte) in bytes.iter().enumerate() {
                        if n > 0 {
                            out.push(',');
                        }
                        push_integer(out, u64::from(*byte));
                    }
                    out.push_str("]}");
                }
            },
            Self::Array(values) => {
                out.push('[');
                for (n, value) in values.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    value.to_json(out, attachments.as_deref_mut());
                }
                out.push(']');
            }
            Self::Map(pairs) => {
                out.push('{');
                let mut first = true;
                for (key, value) in pairs.iter().filter(|(_, value)| *value != Self::Undefined) {
                    if !std::mem::take(&mut first) {
                        out.push(',');
                    }
                    push_text(out, key);
                    out.push(':');
                    value.to_json(out, attachments.as_deref_mut());
                }
                out.push('}');
            }
            Self::Date(date) => match date.iso() {
                Some(text) => push_text(out, &text),
                None => out.push_str("null"),
            },
        }
    }

    /// The JSON text of [`to_json`](Self::to_json), without attachments.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::with_capacity(TEXT);
        self.to_json(&mut out, None);
        out
    }

    /// The JSON and the attachments of a Socket.IO packet.
    #[must_use]
    pub fn packet(&self) -> (String, Vec<Bytes>) {
        let (mut out, mut attachments) = (String::with_capacity(TEXT), Vec::new());
        self.to_json(&mut out, Some(&mut attachments));
        (out, attachments)
    }

    /// Whether an attachment is anywhere inside.
    #[must_use]
    pub fn has_binary(&self) -> bool {
        match self {
            Self::Bin(_) => true,
            Self::Array(values) => values.iter().any(Self::has_binary),
            Self::Map(pairs) => pairs.iter().any(|(_, value)| value.has_binary()),
            _ => false,
        }
    }

    /// The same, on its own feet.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Undefined => Value::Undefined,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Uint(value) => Value::Uint(value),
            Self::Float(value) => Value::Float(value),
            Self::Str(value) => Value::Str(Cow::Owned(value.into_owned())),
            // The buffer of a whole message is not kept for a part of it.
            Self::Bin(value) => Value::Bin(Bytes::copy_from_slice(&value)),
            Self::Array(values) => {
                Value::Array(values.into_iter().map(Value::into_owned).collect())
            }
            Self::Map(pairs) => Value::Map(
                pairs
                    .into_iter()
                    .map(|(key, value)| (Cow::Owned(key.into_owned()), value.into_owned()))
                    .collect(),
            ),
            Self::Date(date) => Value::Date(date),
        }
    }

    /// An entry of an object. `undefined` is as good as none.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(pairs) = self else { return None };
        let (_, value) = pairs.iter().find(|(name, _)| name == key)?;
        (*value != Self::Undefined).then_some(value)
    }

    /// Takes an entry out of an object.
    pub(crate) fn take(&mut self, key: &str) -> Option<Self> {
        let Self::Map(pairs) = self else { return None };
        let (_, value) = pairs.iter_mut().find(|(name, _)| name == key)?;
        let value = std::mem::replace(value, Self::Undefined);
        (value != Self::Undefined).then_some(value)
    }

    /// Text, if it is that.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(value) => Some(value),
            _ => None,
        }
    }

    /// An integer that is not negative, if it is that.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint(value) => Some(*value),
            _ => None,
        }
    }

    /// A number as the shortest of the kinds: JavaScript has but one.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub(crate) fn number(value: f64) -> Self {
        if value.fract() != 0.0 || !value.is_finite() {
            Self::Float(value)
        } else if (0.0..u64::MAX as f64).contains(&value) {
            Self::Uint(value as u64)
        } else if value < 0.0 && value >= i64::MIN as f64 {
            Self::Int(value as i64)
        } else if value == 0.0 {
            Self::Uint(0)
        } else {
            Self::Float(value)
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Str(Cow::Borrowed(value))
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Str(Cow::Owned(value))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        Self::Uint(value)
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(values: Vec<Value<'a>>) -> Self {
        Self::Array(values)
    }
}

/// An object of these entries.
pub(crate) fn object<'a, const N: usize>(pairs: [(&'static str, Value<'a>); N]) -> Value<'a> {
    Value::Map(pairs.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect())
}

fn count(len: usize) -> u32 {
    // MessagePack has no longer ones; nothing that came in can be.
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn push_integer(out: &mut String, mut value: u64) {
    // As many digits as the largest has; filled from the end.
    let mut digits = [0; 20];
    let mut from = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        from = at;
        if value == 0 {
            break;
        }
    }
    out.extend(digits[from..].iter().map(|digit| char::from(*digit)));
}

/// ECMA-262 "Number::toString" as JSON uses it.
fn push_number(out: &mut String, value: f64) {
    if !value.is_finite() {
        out.push_str("null");
    } else if value == 0.0 {
        out.push('0');
    } else {
        out.push_str(ryu_js::Buffer::new().format_finite(value));
    }
}

/// A text in quotes. `serde_json` escapes what `JSON.stringify` does, no more.
fn push_text(out: &mut String, text: &str) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    // To the end in any case, so that many bytes are looked at at once.
    if text.as_bytes().iter().fold(true, |all, byte| all & plain(byte)) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else if let Ok(escaped) = serde_json::to_string(text) {
        out.push_str(&escaped);
    }
}

/// Replaces `\udxxx` escapes that are no pair by U+FFFD. `None` if there is none.
fn replace_lone_surrogates(text: &str) -> Option<String> {
    let unit = |at: usize| -> Option<u16> {
        let hex = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(hex, 16).ok()
    };
    let (mut out, mut at, mut found) = (String::with_capacity(text.len()), 0, false);
    while let Some(found_at) = text[at..].find('\\') {
        let escape = at + found_at;
        out.push_str(&text[at..escape]);
        at = escape;
        let len = match unit(escape) {
            Some(0xd800..=0xdbff) if matches!(unit(escape + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                found = true;
                out.push('\u{fffd}');
                at += 6;
                continue;
            }
            Some(_) => 6,
            None => 2,
        };
        // An escape is of ASCII but for what follows a stray backslash.
        let end = (escape + len..=text.len()).find(|end| text.is_char_boundary(*end))?;
        out.push_str(&text[escape..end]);
        at = end;
    }
    out.push_str(&text[at..]);
    found.then_some(out)
}

impl Date {
    /// As `Date.prototype.toISOString` writes it; `None` for what JavaScript calls
    /// an invalid date.
    #[must_use]
    pub fn iso(self) -> Option<String> {
        const LAST: i64 = 8_640_000_000_000_000;
        let (whole, part) = (i64::from(self.nanos / 1_000_000), self.nanos % 1_000_000);
        let mut ms = self.seconds.checked_mul(1000)?.checked_add(whole)?;
        if ms < 0 && part > 0 {
            // What is less than a millisecond is cut towards 1970.
            ms += 1;
        }
        if !(-LAST..=LAST).contains(&ms) {
            return None;
        }
        let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        let (year, month, day) = civil(days);
        let year = match year {
            0..=9999 => format!("{year:04}"),
            _ => format!("{year:+07}"),
        };
        let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
        let (second, ms) = (of_day / 1000 % 60, of_day % 1000);
        Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"))
    }

    fn from_ms(ms: i64) -> Self {
        let nanos = u32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or(0);
        Self { seconds: ms.div_euclid(1000), nanos }
    }

    /// The shortest of the three forms of the timestamp extension.
    fn write(self, out: &mut ByteBuf) {
        let mut bytes = |header: &[u8], rest: &[u8]| {
            out.as_mut_vec().extend_from_slice(header);
            out.as_mut_vec().extend_from_slice(rest);
        };
        match (u32::try_from(self.seconds), u64::try_from(self.seconds)) {
            (Ok(seconds), _) if self.nanos == 0 => bytes(&[0xd6, 0xff], &seconds.to_be_bytes()),
            (_, Ok(seconds)) if seconds < 1 << 34 => {
                let both = u64::from(self.nanos) << 34 | seconds;
                bytes(&[0xd7, 0xff], &both.to_be_bytes());
            }
            _ => {
                bytes(&[0xc7, 12, 0xff], &self.nanos.to_be_bytes());
                bytes(&[], &self.seconds.to_be_bytes());
            }
        }
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar without
/// beginning or end, as JavaScript counts.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years that begin in March put the odd day at the end; 400 of them are an era.
    let since = days + 719_468;
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Keys as a JavaScript object has them: each once, at its first place with its
/// last value, and those that look like an array's index first, in their order.
fn as_object<'a>(pairs: Vec<(Cow<'a, str>, Value<'a>)>) -> Value<'a> {
    let mut pairs = deduplicated(pairs);
    let index = |key: &str| -> Option<u32> {
        let plain = key.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = key == "0" || !key.starts_with('0');
        (plain && canonical).then(|| key.parse().ok()).flatten().filter(|n| *n < u32::MAX)
    };
    if pairs.iter().any(|(key, _)| index(key).is_some()) {
        // A stable sort: all others keep their order, behind.
        pairs.sort_by_key(|(key, _)| index(key).map_or(u64::MAX, u64::from));
    }
    Value::Map(pairs)
}

fn deduplicated<'a>(pairs: Vec<(Cow<'a, str>, Value<'a>)>) -> Vec<(Cow<'a, str>, Value<'a>)> {
    /// Above, looking at all pairs of pairs costs more than a table.
    const FEW: usize = 16;
    let repeated = if pairs.len() <= FEW {
        (1..pairs.len()).any(|n| pairs[..n].iter().any(|(key, _)| *key == pairs[n].0))
    } else {
        let mut seen = std::collections::HashSet::with_capacity(pairs.len());
        !pairs.iter().all(|(key, _)| seen.insert(&**key))
    };
    if !repeated {
        return pairs;
    }
    let mut places = HashMap::new();
    let mut kept: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
    for (key, value) in pairs {
        match places.get(&key) {
            Some(&place) => {
                let (_, old): &mut (_, _) = &mut kept[place];
                *old = value;
            }
            None => {
                places.insert(key.clone(), kept.len());
                kept.push((key, value));
            }
        }
    }
    kept
}

/// Reads MessagePack.
struct Reader<'a> {
    all: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(len).ok_or(Malformed::Truncated)?;
        let bytes = self.all.get(self.at..end).ok_or(Malformed::Truncated)?;
        self.at = end;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Truncated)
    }

    /// A length of 1, 2 or 4 bytes.
    fn len(&mut self, bytes: usize) -> Result<usize, Malformed> {
        let len = self.take(bytes)?.iter().fold(0u64, |len, byte| len << 8 | u64::from(*byte));
        usize::try_from(len).map_err(|_| Malformed::Truncated)
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        if depth > DEPTH {
            return Err(Malformed::Deep);
        }
        let [marker] = self.fixed()?;
        Ok(match Marker::from_u8(marker) {
            Marker::FixPos(value) => Value::Uint(u64::from(value)),
            Marker::FixNeg(value) => Value::Int(i64::from(value)),
            Marker::FixMap(len) => return self.map(usize::from(len), depth),
            Marker::FixArray(len) => return self.array(usize::from(len), depth),
            Marker::FixStr(len) => self.text(usize::from(len))?,
            Marker::Null => Value::Null,
            Marker::Reserved => return Err(Malformed::Reserved),
            Marker::False => Value::Bool(false),
            Marker::True => Value::Bool(true),
            Marker::Bin8 => self.bin(1)?,
            Marker::Bin16 => self.bin(2)?,
            Marker::Bin32 => self.bin(4)?,
            Marker::Ext8 => self.ext(1)?,
            Marker::Ext16 => self.ext(2)?,
            Marker::Ext32 => self.ext(4)?,
            Marker::F32 => Value::number(f64::from(f32::from_be_bytes(self.fixed()?))),
            Marker::F64 => Value::number(f64::from_be_bytes(self.fixed()?)),
            Marker::U8 => Value::Uint(u64::from(u8::from_be_bytes(self.fixed()?))),
            Marker::U16 => Value::Uint(u64::from(u16::from_be_bytes(self.fixed()?))),
            Marker::U32 => Value::Uint(u64::from(u32::from_be_bytes(self.fixed()?))),
            Marker::U64 => Value::Uint(u64::from_be_bytes(self.fixed()?)),
            Marker::I8 => integer(i64::from(i8::from_be_bytes(self.fixed()?))),
            Marker::I16 => integer(i64::from(i16::from_be_bytes(self.fixed()?))),
            Marker::I32 => integer(i64::from(i32::from_be_bytes(self.fixed()?))),
            Marker::I64 => integer(i64::from_be_bytes(self.fixed()?)),
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Str8 => self.long_text(1)?,
            Marker::Str16 => self.long_text(2)?,
            Marker::Str32 => self.long_text(4)?,
            Marker::Array16 => {
                let len = self.len(2)?;
                return self.array(len, depth);
            }
            Marker::Array32 => {
                let len = self.len(4)?;
                return self.array(len, depth);
            }
            Marker::Map16 => {
                let len = self.len(2)?;
                return self.map(len, depth);
            }
            Marker::Map32 => {
                let len = self.len(4)?;
                return self.map(len, depth);
            }
        })
    }

    fn text(&mut self, len: usize) -> Result<Value<'a>, Malformed> {
        let bytes = self.take(len)?;
        // Almost always it is whole, and then this is the faster way.
        Ok(Value::Str(match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(bytes),
        }))
    }

    fn long_text(&mut self, bytes: usize) -> Result<Value<'a>, Malformed> {
        let len = self.len(bytes)?;
        self.text(len)
    }

    fn slice(&mut self, len: usize) -> Result<Bytes, Malformed> {
        Ok(self.all.slice_ref(self.take(len)?))
    }

    fn bin(&mut self, bytes: usize) -> Result<Value<'a>, Malformed> {
        let len = self.len(bytes)?;
        self.slice(len).map(Value::Bin)
    }

    fn array(&mut self, len: usize, depth: usize) -> Result<Value<'a>, Malformed> {
        // Each element is a byte at least.
        if len > self.all.len() - self.at {
            return Err(Malformed::Truncated);
        }
        let mut values = Vec::with_capacity(len.min(RESERVE));
        for _ in 0..len {
            values.push(self.value(depth + 1)?);
        }
        Ok(Value::Array(values))
    }

    fn map(&mut self, len: usize, depth: usize) -> Result<Value<'a>, Malformed> {
        if len > (self.all.len() - self.at) / 2 {
            return Err(Malformed::Truncated);
        }
        let mut pairs = Vec::with_capacity(len.min(RESERVE));
        for _ in 0..len {
            let key = match self.value(depth + 1)? {
                Value::Str(key) => key,
                Value::Bin(key) => Cow::Owned(String::from_utf8_lossy(&key).into_owned()),
                // What `String(key)` gives for scalars.
                Value::Float(key) if !key.is_finite() => Cow::Borrowed(match key {
                    f64::INFINITY => "Infinity",
                    f64::NEG_INFINITY => "-Infinity",
                    _ => "NaN",
                }),
                key @ (Value::Null
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Uint(_)
                | Value::Float(_)) => Cow::Owned(key.json()),
                Value::Undefined => Cow::Borrowed("undefined"),
                _ => return Err(Malformed::Shape("a key")),
            };
            let value = self.value(depth + 1)?;
            // Assigning it sets no entry in JavaScript.
            if key != "__proto__" {
                pairs.push((key, value));
            }
        }
        Ok(as_object(pairs))
    }

    fn ext(&mut self, bytes: usize) -> Result<Value<'a>, Malformed> {
        let len = self.len(bytes)?;
        let kind = i8::from_be_bytes(self.fixed()?);
        match (kind, len) {
            (-1, 12) => {
                let nanos = u32::from_be_bytes(self.fixed()?);
                let seconds = i64::from_be_bytes(self.fixed()?);
                Ok(timestamp(seconds, nanos))
            }
            // notepack.io 2 wrote an `ArrayBuffer` like this.
            (0, _) => self.slice(len).map(Value::Bin),
            _ => self.unknown(kind, len),
        }
    }

    fn extension(&mut self, len: usize) -> Result<Value<'a>, Malformed> {
        let kind = i8::from_be_bytes(self.fixed()?);
        match (kind, len) {
            (-1, 4) => Ok(timestamp(i64::from(u32::from_be_bytes(self.fixed()?)), 0)),
            (-1, 8) => {
                let both = u64::from_be_bytes(self.fixed()?);
                let seconds = i64::try_from(both & ((1 << 34) - 1)).unwrap_or(0);
                Ok(timestamp(seconds, u32::try_from(both >> 34).unwrap_or(0)))
            }
            // notepack.io 2 wrote `undefined` and dates like this.
            (0, 1) => self.take(1).map(|_| Value::Undefined),
            (0, 8) => Ok(Value::Date(Date::from_ms(i64::from_be_bytes(self.fixed()?)))),
            _ => self.unknown(kind, len),
        }
    }

    fn unknown(&mut self, kind: i8, len: usize) -> Result<Value<'a>, Malformed> {
        let bytes = self.slice(len)?;
        Ok(Value::Array(vec![integer(i64::from(kind)), Value::Bin(bytes)]))
    }
}

/// Nanoseconds of a second and more are not forbidden strictly enough.
fn timestamp<'a>(seconds: i64, nanos: u32) -> Value<'a> {
    let seconds = seconds.saturating_add(i64::from(nanos / 1_000_000_000));
    Value::Date(Date { seconds, nanos: nanos % 1_000_000_000 })
}

fn integer<'a>(value: i64) -> Value<'a> {
    u64::try_from(value).map_or(Value::Int(value), Value::Uint)
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Value::Uint(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(integer(value))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Value::number(value))
            }

            fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Value::Str(Cow::Borrowed(value)))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Value::Str(Cow::Owned(value.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Value::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    pairs.push((key, map.next_value()?));
                }
                Ok(as_object(pairs))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// A key that borrows if it can.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Str(key) => Ok(Self(key)),
            _ => Err(de::Error::custom("a key is text")),
        }
    }
}

//! What holds for all values and for all bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::protocol::Incoming;
use crate::value::{Date, Malformed, Value};
use crate::vectors::{vectors, written};

// ---- all values ----

fn numbers() -> impl Strategy<Value = Value<'static>> {
    let edges = [0.5, 1e-7, 1e-6, 1e20, 1e21, 1e22, 5e-324, f64::MAX, 0.1 + 0.2, -0.0, 1.0, -3.0];
    prop_oneof![
        any::<u64>().prop_map(Value::Uint),
        (0u64..300).prop_map(Value::Uint),
        (i64::MIN..0).prop_map(Value::Int),
        (-300i64..0).prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        (-1_000_000i32..1_000_000).prop_map(|n| Value::Float(f64::from(n) / 64.0)),
        proptest::sample::select(edges.to_vec()).prop_map(Value::Float),
        Just(Value::Float(f64::NAN)),
        Just(Value::Float(f64::INFINITY)),
    ]
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,40}",
        any::<String>(),
        "[\\x00-\\x7f]{0,10}",
        proptest::sample::select(vec!["\u{2028}", "\u{7f}", "é😀", "\"\\", "__proto__"])
            .prop_map(str::to_owned),
    ]
}

fn keys() -> impl Strategy<Value = String> {
    let index = ["0", "00", "1", "10", "2", "-1", "4294967294", "4294967295", "1.5", "+1", "٣"];
    prop_oneof![
        texts(),
        any::<u32>().prop_map(|n| n.to_string()),
        proptest::sample::select(index.to_vec()).prop_map(str::to_owned),
    ]
}

fn dates() -> impl Strategy<Value = Date> {
    let seconds = prop_oneof![
        any::<i64>(),
        -9_000_000_000_000i64..9_000_000_000_000,
        0..(1i64 << 34),
        0..(1i64 << 32),
    ];
    (seconds, prop_oneof![Just(0), 0u32..1_000_000_000])
        .prop_map(|(seconds, nanos)| Date { seconds, nanos })
}

fn values() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(Value::Undefined),
        any::<bool>().prop_map(Value::Bool),
        numbers(),
        texts().prop_map(|text| Value::Str(Cow::Owned(text))),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bin(bytes.into())),
        dates().prop_map(Value::Date),
    ];
    leaf.prop_recursive(5, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            // Beyond the bound up to which doubles are looked for one by one.
            proptest::collection::vec((keys(), inner), 0..20).prop_map(|pairs| {
                Value::Map(pairs.into_iter().map(|(key, value)| (Cow::Owned(key), value)).collect())
            }),
        ]
    })
}

/// A number that an array has a place for.
fn index(key: &str) -> Option<u32> {
    key.parse::<u32>().ok().filter(|n| *n != u32::MAX && n.to_string() == key)
}

/// The entries that a JavaScript object has after assigning these.
fn assigned<'a>(pairs: impl Iterator<Item = (String, Value<'a>)>) -> Value<'a> {
    let (mut order, mut entries) = (Vec::new(), BTreeMap::new());
    for (key, value) in pairs {
        if !entries.contains_key(&key) {
            order.push(key.clone());
        }
        entries.insert(key, value);
    }
    let mut indices: Vec<_> = order.iter().filter_map(|key| index(key)).collect();
    indices.sort_unstable();
    let others = order.into_iter().filter(|key| index(key).is_none());
    let order: Vec<_> = indices.iter().map(u32::to_string).chain(others).collect();
    Value::Map(
        order
            .into_iter()
            .map(|key| {
                let value = entries.remove(&key).unwrap();
                (Cow::Owned(key), value)
            })
            .collect(),
    )
}

fn children<'a>(
    value: Value<'a>,
    each: &impl Fn(Value<'a>) -> Value<'a>,
    proto: bool,
) -> Value<'a> {
    match value {
        Value::Array(list) => Value::Array(
            list.into_iter()
                .map(|value| if value == Value::Undefined { Value::Null } else { each(value) })
                .collect(),
        ),
        Value::Map(pairs) => assigned(
            pairs
                .into_iter()
                .filter(|(key, value)| *value != Value::Undefined && (proto || key != "__proto__"))
                .map(|(key, value)| (key.into_owned(), each(value))),
        ),
        value => value,
    }
}

/// What MessagePack keeps of a value.
fn over_msgpack(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Undefined => Value::Null,
        Value::Float(number) => Value::number(number),
        value => children(value, &over_msgpack, false),
    }
}

/// What JSON keeps of a value.
#[allow(clippy::cast_precision_loss)]
fn over_json(value: Value<'_>) -> Value<'_> {
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Undefined => Value::Null,
        Value::Float(number) if !number.is_finite() => Value::Null,
        Value::Float(number) if number.abs() > EXACT as f64 => read_back(number),
        Value::Float(number) => Value::number(number),
        Value::Uint(number) if number > EXACT => read_back(number as f64),
        Value::Int(number) if number.unsigned_abs() > EXACT => read_back(number as f64),
        Value::Bin(bytes) => {
            let bytes = bytes.iter().map(|byte| Value::Uint(u64::from(*byte))).collect();
            crate::value::object([("type", "Buffer".into()), ("data", Value::Array(bytes))])
        }
        Value::Date(date) => date.iso().map_or(Value::Null, Value::from),
        value => children(value, &over_json, true),
    }
}

/// A large integer as JavaScript prints it, which has zeros for the last digits.
fn read_back(number: f64) -> Value<'static> {
    let digits = js_number(number);
    match (digits.parse::<u64>(), digits.parse::<i64>()) {
        (Ok(number), _) => Value::Uint(number),
        (_, Ok(number)) => Value::Int(number),
        _ => Value::number(number),
    }
}

/// ECMA-262's Number::toString.
fn js_number(number: f64) -> String {
    if !number.is_finite() {
        return "null".into();
    }
    if number == 0.0 {
        return "0".into();
    }
    // As many digits as it takes, and of two that are as near the even one.
    let shortest = format!("{:e}", number.abs());
    let digits = shortest.split('e').next().unwrap().chars().filter(char::is_ascii_digit).count();
    let text = format!("{:.*e}", digits - 1, number.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let point = exponent.parse::<i32>().unwrap() + 1;
    let n = i32::try_from(digits.len()).unwrap();
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap());
    let text = if n <= point && point <= 21 {
        format!("{digits}{}", zeros(point - n))
    } else if 0 < point && point <= 21 {
        let (whole, part) = digits.split_at(usize::try_from(point).unwrap());
        format!("{whole}.{part}")
    } else if -6 < point && point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{first}{dot}{rest}e{:+}", point - 1)
    };
    if number < 0.0 { format!("-{text}") } else { text }
}

fn js_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

#[allow(clippy::cast_precision_loss)]
fn js_json(value: &Value<'_>) -> String {
    match value {
        Value::Null | Value::Undefined => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Uint(value) => js_number(*value as f64),
        Value::Int(value) => js_number(*value as f64),
        Value::Float(value) => js_number(*value),
        Value::Str(text) => js_text(text),
        Value::Bin(_) | Value::Date(_) => js_json(&over_json(value.clone())),
        Value::Array(list) => {
            format!("[{}]", list.iter().map(js_json).collect::<Vec<_>>().join(","))
        }
        Value::Map(pairs) => {
            let pairs = pairs.iter().filter(|(_, value)| *value != Value::Undefined);
            let pairs = pairs.map(|(key, value)| format!("{}:{}", js_text(key), js_json(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
    }
}

fn msgpack(value: &Value<'_>) -> Bytes {
    let mut out = Vec::new();
    value.to_msgpack(&mut out);
    out.into()
}

/// A day of a year, counted year by year from 1970.
fn days_to(year: i64) -> i64 {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let len = |year| 365 + i64::from(leap(year));
    if year >= 1970 { (1970..year).map(len).sum() } else { -(year..1970).map(len).sum::<i64>() }
}

proptest! {
    #[test]
    fn msgpack_keeps_what_javascript_keeps(value in values()) {
        let bytes = msgpack(&value);
        let read = Value::from_msgpack(&bytes).unwrap();
        // As text, since NaN is not equal to itself.
        prop_assert_eq!(format!("{read:?}"), format!("{:?}", over_msgpack(value)));
        // What was read is written to the same bytes from then on.
        let again = msgpack(&read);
        prop_assert_eq!(Value::from_msgpack(&again).map(|v| msgpack(&v)), Ok(again.clone()));
    }

    #[test]
    fn json_keeps_what_javascript_keeps(value in values()) {
        let text = value.json();
        let read = Value::from_json(&text).unwrap();
        prop_assert_eq!(&read, &over_json(value.clone()));
        let again = read.json();
        prop_assert_eq!(Value::from_json(&again).unwrap(), read);
    }

    #[test]
    fn json_is_printed_as_javascript_does(value in values()) {
        prop_assert_eq!(value.json(), js_json(&value));
    }

    #[test]
    fn numbers_are_printed_as_javascript_does(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        prop_assert_eq!(Value::Float(number).json(), js_number(number));
    }

    #[test]
    fn json_is_json(value in values()) {
        let text = value.json();
        let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert!(text == "null" || !theirs.is_null());
    }

    #[test]
    fn attachments_come_back(value in values()) {
        // With the keys in JavaScript's order.
        let bytes = msgpack(&value);
        let value = Value::from_msgpack(&bytes).unwrap();
        let (text, attachments) = value.packet();
        let read = Value::from_packet(&text, &attachments).unwrap();
        let (text_again, attachments_again) = read.packet();
        // Values that look like a placeholder become one; others stay.
        prop_assert_eq!(&text, &text_again);
        prop_assert_eq!(&attachments, &attachments_again);
        prop_assert_eq!(value.has_binary(), read.has_binary());
    }

    #[test]
    fn half_surrogates_are_replaced(units in proptest::collection::vec(
        prop_oneof![0u16..0x80, 0xd800u16..0xe000, any::<u16>()], 0..20,
    ), raw in "[a-z\\\\\"é😀]{0,6}") {
        let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
        let raw = js_text(&raw);
        let text = format!("[{raw},\"{escaped}\",{{\"{escaped}\":1}}]");
        let read = Value::from_json(&text).unwrap();
        let expected = String::from_utf16_lossy(&units);
        let Value::Array(list) = &read else { panic!() };
        prop_assert_eq!(list[1].as_str(), Some(&*expected));
        prop_assert_eq!(list[2].get(&expected), Some(&Value::Uint(1)));
    }

    #[test]
    fn dates_are_printed_as_javascript_does(year in -6000i64..16000, day in 0i64..365, ms in 0i64..86_400_000) {
        let all = (days_to(year) + day) * 86_400_000 + ms;
        let nanos = u32::try_from(all.rem_euclid(1000)).unwrap() * 1_000_000;
        let date = Date { seconds: all.div_euclid(1000), nanos };
        let text = date.iso().unwrap();
        let (years, rest) = text.split_at(text.len() - "-01-01T00:00:00.000Z".len());
        let expected = match year {
            0..=9999 => format!("{year:04}"),
            _ => format!("{}{:06}", if year < 0 { '-' } else { '+' }, year.abs()),
        };
        prop_assert_eq!(years, expected);
        let field = |range: std::ops::Range<usize>| rest[range].parse::<i64>().unwrap();
        let leap = days_to(year + 1) - days_to(year) == 366;
        let months = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let before: i64 = months[..usize::try_from(field(1..3)).unwrap() - 1].iter().sum();
        prop_assert_eq!(before + field(4..6) - 1, day);
        let hours = field(7..9) * 3_600_000 + field(10..12) * 60_000;
        prop_assert_eq!(hours + field(13..15) * 1000 + field(16..19), ms);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        if let Ok(value) = Value::from_msgpack(&bytes) {
            prop_assert!(held(&value) <= most(bytes.len()));
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            Value::from_json(text).ok();
        }
    }
}

#[test]
fn the_first_and_the_last_date() {
    let at = |seconds, nanos| Date { seconds, nanos }.iso();
    assert_eq!(at(0, 0).unwrap(), "1970-01-01T00:00:00.000Z");
    assert_eq!(at(8_640_000_000_000, 0).unwrap(), "+275760-09-13T00:00:00.000Z");
    assert_eq!(at(8_640_000_000_000, 1_000_000), None);
    assert_eq!(at(-8_640_000_000_000, 0).unwrap(), "-271821-04-20T00:00:00.000Z");
    assert_eq!(at(-8_640_000_000_001, 999_000_000), None);
    assert_eq!(at(i64::MIN, 0), None);
    assert_eq!(at(i64::MAX, 999_999_999), None);
    assert_eq!(at(253_402_300_799, 999_999_999).unwrap(), "9999-12-31T23:59:59.999Z");
    assert_eq!(at(253_402_300_800, 0).unwrap(), "+010000-01-01T00:00:00.000Z");
    assert_eq!(at(-62_167_219_200, 0).unwrap(), "0000-01-01T00:00:00.000Z");
    assert_eq!(at(-62_167_219_201, 999_000_000).unwrap(), "-000001-12-31T23:59:59.999Z");
    // JavaScript cuts towards 1970.
    assert_eq!(at(-1, 999_999_999).unwrap(), "1970-01-01T00:00:00.000Z");
    assert_eq!(at(-1, 998_999_999).unwrap(), "1969-12-31T23:59:59.999Z");
    assert_eq!(at(-1, 998_000_000).unwrap(), "1969-12-31T23:59:59.998Z");
}

// ---- all bytes ----

/// Bytes that a value holds.
fn held(value: &Value<'_>) -> usize {
    let text = |text: &Cow<'_, str>| match text {
        Cow::Borrowed(_) => 0,
        Cow::Owned(text) => text.capacity(),
    };
    match value {
        Value::Str(value) => text(value),
        Value::Array(list) => {
            list.capacity() * size_of::<Value<'_>>() + list.iter().map(held).sum::<usize>()
        }
        Value::Map(pairs) => {
            pairs.capacity() * size_of::<(Cow<'_, str>, Value<'_>)>()
                + pairs.iter().map(|(key, value)| text(key) + held(value)).sum::<usize>()
        }
        _ => 0,
    }
}

/// What the value of so many bytes may hold at most: each byte may be a value, and
/// lists grow by doubling.
fn most(len: usize) -> usize {
    2 * size_of::<Value<'_>>() * len + 256
}

#[test]
fn declared_lengths_are_compared_with_what_is_there() {
    let huge: [&[u8]; 12] = [
        &[0xc9, 0x3f, 0xe0, 0, 0, 0],
        &[0xc8, 0xff, 0xff, 0],
        &[0xc7, 0xff, 0],
        &[0xc6, 0xff, 0xff, 0xff, 0xff],
        &[0xc5, 0xff, 0xff],
        &[0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0xda, 0xff, 0xff],
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0xdc, 0xff, 0xff],
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0xde, 0xff, 0xff],
        &[0x9f],
    ];
    for header in huge {
        for before in [&[][..], &[0x91], &[0x81, 0xa1, b'k']] {
            let bytes = [before, header, &[0xc0; 7]].concat();
            let read = Value::from_msgpack(&bytes.into()).map(|value| format!("{value:?}"));
            assert_eq!(read, Err(Malformed::Truncated), "{header:x?}");
        }
    }
}

#[test]
fn nesting_is_bounded() {
    for open in [&[0x91][..], &[0x81, 0xa1, b'k'], &[0xdc, 0, 1], &[0xdf, 0, 0, 0, 1, 0xc0]] {
        let nested = |depth: usize| -> Bytes { [open.repeat(depth), vec![0xc0]].concat().into() };
        assert!(Value::from_msgpack(&nested(128)).is_ok());
        assert_eq!(Value::from_msgpack(&nested(129)), Err(Malformed::Deep));
        assert_eq!(Value::from_msgpack(&nested(1_000_000)), Err(Malformed::Deep));
    }
    let json = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Value::from_json(&json(127)).is_ok());
    assert_eq!(Value::from_json(&json(1_000_000)), Err(Malformed::Json));
}

#[test]
fn many_keys_that_repeat_cost_no_more_than_others() {
    // 200,000 times the same key, and as many different ones.
    let mut same = vec![0xdf, 0, 3, 0x0d, 0x40];
    let mut different = same.clone();
    for n in 0u32..200_000 {
        same.extend([0xa1, b'k', 0xc0]);
        different.push(0xce);
        different.extend((n + 70_000).to_be_bytes());
        different.push(0xc0);
    }
    let same = Bytes::from(same);
    let Ok(Value::Map(pairs)) = Value::from_msgpack(&same) else { panic!() };
    assert_eq!(pairs, [("k".into(), Value::Null)]);
    let different = Bytes::from(different);
    let Ok(Value::Map(pairs)) = Value::from_msgpack(&different) else { panic!() };
    assert_eq!(pairs.len(), 200_000);
}

/// One change, as a broken peer or a broken line makes it.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    if bytes.is_empty() {
        bytes.push(random.random());
    }
    let at = random.random_range(0..bytes.len());
    let len = random.random_range(0..=(bytes.len() - at).min(16));
    match random.random_range(0..9) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, random.random()),
        4 => drop(bytes.drain(at..at + len)),
        5 => {
            let again = bytes[at..at + len].to_vec();
            bytes.splice(at..at, again);
        }
        6 => {
            // Markers with a length, and digits and brackets of JSON.
            const MARKERS: &[u8] = b"\x80\x90\xa0\xc1\xc4\xc5\xc6\xc7\xc8\xc9\xca\xcb\xcc\xcd\xce\xcf\xd0\xd1\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xdb\xdc\xdd\xde\xdf[]{}\"\\,:09e-";
            bytes[at] = MARKERS[random.random_range(0..MARKERS.len())];
        }
        7 => bytes[at..at + len].fill(0xff),
        _ => {
            let from = random.random_range(0..=other.len());
            let to = (from + len).min(other.len());
            bytes.splice(at..at + len, other[from..to].iter().copied());
        }
    }
}

/// A million broken messages: none is a panic, and none takes more memory than its
/// length allows.
#[test]
fn a_million_mutations_are_read_or_refused() {
    const ALL: usize = 1_000_000;
    let mut real = Vec::new();
    for vector in &vectors().vectors {
        real.extend(vector.payloads());
    }
    let mut random = StdRng::seed_from_u64(5);
    let (mut read, mut refused) = (0, 0);
    for n in 0..ALL {
        let (dialect, channel, bytes) = &real[n % real.len()];
        let (_, _, other) = &real[random.random_range(0..real.len())];
        let mut bytes = bytes.to_vec();
        for _ in 0..random.random_range(1..4) {
            mutate(&mut bytes, other, &mut random);
        }
        let bytes = Bytes::from(bytes);
        match dialect.read(channel, &bytes) {
            Ok(incoming) => {
                read += 1;
                let Some(incoming) = incoming else { continue };
                if let Incoming::Broadcast { event, .. } = &incoming {
                    let held: usize = event.data().iter().map(held).sum();
                    assert!(held <= most(bytes.len()), "{held} for {}", bytes.len());
                    let _ = event.packet();
                }
                if n % 8 == 0 {
                    written(dialect, incoming);
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > ALL / 10 && refused > ALL / 10, "{read} {refused}");
}

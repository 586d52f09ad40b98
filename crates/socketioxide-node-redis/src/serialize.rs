//! Values for serde: what another crate encodes for its clients.

use serde::ser::{Serialize, SerializeMap as _, SerializeTuple as _, Serializer};

use crate::protocol::Event;
use crate::value::Value;

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null | Self::Undefined => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Uint(value) => serializer.serialize_u64(*value),
            // JSON has no others, and JavaScript writes `null` for them.
            Self::Float(value) if !value.is_finite() => serializer.serialize_unit(),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Str(value) => serializer.serialize_str(value),
            Self::Bin(value) => serializer.serialize_bytes(value),
            Self::Array(values) => serializer.collect_seq(values),
            Self::Map(pairs) => {
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in pairs.iter().filter(|(_, value)| *value != Self::Undefined) {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::Date(date) => match date.iso() {
                Some(text) => serializer.serialize_str(&text),
                None => serializer.serialize_unit(),
            },
        }
    }
}

/// The arguments of an event, without its name: a tuple, which is how socketioxide
/// takes several arguments.
#[derive(Debug, Clone)]
pub struct Args(Vec<Value<'static>>);

impl Args {
    /// Those of an event.
    #[must_use]
    pub fn of(event: Event<'_>) -> Self {
        Self(event.into_owned().into_data().into_iter().skip(1).collect())
    }
}

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for value in &self.0 {
            tuple.serialize_element(value)?;
        }
        tuple.end()
    }
}

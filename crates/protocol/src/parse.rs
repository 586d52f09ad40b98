//! From untrusted JSON to a typed payload.

use serde::de::DeserializeOwned;

use crate::Failure;

/// Reads a payload, or says which field is wrong and why. Unknown fields are
/// ignored, as the contract wants.
///
/// # Errors
/// `validation_failed` with the field's path in `fields`; the path of a payload
/// that is no object at all is `payload`.
pub fn from_json<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    // A list would do for a struct, field by field: the contract knows objects only.
    if !json.trim_start().starts_with('{') {
        return Err(Failure::field("payload", "must be an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let reason = reason(&error.into_inner());
        // A missing field is reported at its parent: name the field itself.
        match missing(&reason) {
            Some(field) if path == "." => Failure::field(field, "is required"),
            Some(field) => Failure::field(format!("{path}.{field}"), "is required"),
            None if path == "." => Failure::field("payload", reason),
            None => Failure::field(path, reason),
        }
    })?;
    deserializer.end().map_err(|error| Failure::field("payload", reason(&error)))?;
    Ok(value)
}

/// serde's sentence without the position, which means nothing to a caller.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn missing(reason: &str) -> Option<&str> {
    reason.strip_prefix("missing field `")?.strip_suffix('`')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{MessageSend, RoomSync};

    fn fields<T: DeserializeOwned>(json: &str) -> Vec<String> {
        match from_json::<T>(json) {
            Ok(_) => Vec::new(),
            Err(failure) => failure.fields.unwrap_or_default().into_keys().collect(),
        }
    }

    #[test]
    fn the_bad_field_is_named() {
        assert_eq!(fields::<MessageSend>(r#"{"roomId":1}"#), ["content"]);
        assert_eq!(fields::<MessageSend>(r#"{"roomId":"x","content":"a"}"#), ["roomId"]);
        assert_eq!(
            fields::<MessageSend>(r#"{"roomId":1,"content":"a","metadata":[]}"#),
            ["metadata"]
        );
        assert_eq!(
            fields::<RoomSync>(r#"{"rooms":[{"roomId":1,"afterSeq":0},{"roomId":2}]}"#),
            ["rooms[1].afterSeq"]
        );
        for odd in ["null", "7", "\"x\"", "[]", "{", ""] {
            assert_eq!(fields::<RoomSync>(odd).len(), 1, "{odd}");
        }
    }

    #[test]
    fn unknown_fields_and_nulls_for_optional_ones_are_fine() {
        let json = r#"{"roomId":1,"content":"a","clientId":null,"messageType":null,"metadata":null,"x":1}"#;
        assert!(from_json::<MessageSend>(json).is_ok());
    }
}

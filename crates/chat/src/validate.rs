//! Checks of single fields, each with the sentence that the caller reads.

use std::ops::RangeInclusive;

use starling_protocol::{Failure, limits};

/// The length of a text in characters, and no U+0000 (which PostgreSQL can't
/// store).
///
/// # Errors
/// `validation_failed` for the field.
pub fn text(field: &str, value: &str, chars: RangeInclusive<usize>) -> Result<(), Failure> {
    // No text has more characters than bytes: most need no count.
    let count = if value.len() < *chars.start() { value.len() } else { value.chars().count() };
    if !chars.contains(&count) {
        let (min, max) = (chars.start(), chars.end());
        return Err(Failure::field(field, format!("must have {min} to {max} characters")));
    }
    if value.contains('\0') {
        return Err(Failure::field(field, "must not contain U+0000"));
    }
    Ok(())
}

/// A message's content.
///
/// # Errors
/// `validation_failed` for `content`.
pub fn content(value: &str) -> Result<(), Failure> {
    text("content", value, 1..=limits::CONTENT_CHARS)
}

/// A username.
///
/// # Errors
/// `validation_failed` for `username`.
pub fn username(value: &str) -> Result<(), Failure> {
    text("username", value, limits::USERNAME_CHARS)?;
    if value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        Ok(())
    } else {
        Err(Failure::field("username", "may have letters, digits, '_', '.' and '-' only"))
    }
}

/// An e-mail address: one `@` with something before it, a domain after it, and
/// no white space.
///
/// # Errors
/// `validation_failed` for `email`.
pub fn email(value: &str) -> Result<(), Failure> {
    text("email", value, 3..=limits::EMAIL_CHARS)?;
    let wrong = || Failure::field("email", "must be an address such as ana@example.org");
    let (local, domain) = value.split_once('@').ok_or_else(wrong)?;
    let blank = value.chars().any(|c| c.is_whitespace() || c.is_control());
    if local.is_empty() || domain.is_empty() || domain.contains('@') || blank {
        return Err(wrong());
    }
    Ok(())
}

/// A new password. Never cut: bcrypt would read the first 72 bytes only.
///
/// # Errors
/// `validation_failed` for `password`.
pub fn password(value: &str) -> Result<(), Failure> {
    if value.chars().count() < limits::PASSWORD_MIN_CHARS {
        return Err(Failure::field("password", "must have at least 8 characters"));
    }
    if value.len() > limits::PASSWORD_MAX_BYTES {
        return Err(Failure::field("password", "must have at most 72 bytes in UTF-8"));
    }
    // bcrypt ends at a zero byte.
    if value.contains('\0') {
        return Err(Failure::field("password", "must not contain U+0000"));
    }
    Ok(())
}

/// A message's metadata: at most 4 KiB as compact JSON, no U+0000 anywhere.
///
/// # Errors
/// `validation_failed` for `metadata`.
pub fn metadata(value: &serde_json::Map<String, serde_json::Value>) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|_| Failure::field("metadata", "must be an object"))?;
    if text.len() > limits::METADATA_BYTES {
        return Err(Failure::field("metadata", "must have at most 4096 bytes as JSON"));
    }
    let has_nul = |text: &str| text.contains('\0');
    fn any(value: &serde_json::Value, test: &dyn Fn(&str) -> bool) -> bool {
        match value {
            serde_json::Value::String(text) => test(text),
            serde_json::Value::Array(items) => items.iter().any(|item| any(item, test)),
            serde_json::Value::Object(map) => {
                map.iter().any(|(key, value)| test(key) || any(value, test))
            }
            _ => false,
        }
    }
    if value.iter().any(|(key, value)| has_nul(key) || any(value, &has_nul)) {
        return Err(Failure::field("metadata", "must not contain U+0000"));
    }
    Ok(())
}

/// How many items a list has.
///
/// # Errors
/// `validation_failed` for the field.
pub fn count(field: &str, len: usize, allowed: RangeInclusive<usize>) -> Result<(), Failure> {
    if allowed.contains(&len) {
        return Ok(());
    }
    let (min, max) = (allowed.start(), allowed.end());
    Err(Failure::field(field, format!("must have {min} to {max} items")))
}

/// A page's size.
///
/// # Errors
/// `validation_failed` for `limit`.
pub fn limit(value: Option<i64>, default: i64) -> Result<i64, Failure> {
    let value = value.unwrap_or(default);
    if limits::PAGE.contains(&value) {
        return Ok(value);
    }
    Err(Failure::field("limit", "must be from 1 to 100"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert!(content(&"😀".repeat(4000)).is_ok());
        assert!(content(&"😀".repeat(4001)).is_err());
        assert!(content("").is_err());
        assert!(content(" ").is_ok());
        assert!(content("a\0b").is_err());
    }

    #[test]
    fn addresses() {
        for good in ["a@b", "ana.b+c@example.org"] {
            assert!(email(good).is_ok(), "{good}");
        }
        for bad in ["a", "@b", "a@", "a@@b", "a@b@c", "a b@c", "a@b c", "a@b\n"] {
            assert!(email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_refused_not_cut() {
        assert!(password(&"ä".repeat(36)).is_ok());
        assert!(password(&"ä".repeat(37)).is_err());
        assert!(password("1234567").is_err());
    }
}

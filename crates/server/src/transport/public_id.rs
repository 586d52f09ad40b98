//! The id that a client learns of its own socket.
//!
//! The engine answers CONNECT with its session id, and whoever knows that can
//! speak as the client while it polls. Clients log their `socket.id` and show it
//! around; in Node.js it is another id, on purpose. So the answer is rewritten on
//! its way out: same length, but derived by a key that only this process knows.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Characters of an engine session id.
const ID: usize = 16;
/// How the answer to CONNECT begins, in the common parser's words.
const ANSWER: &[u8] = b"40{\"sid\":\"";

static KEY: LazyLock<[u8; 32]> = LazyLock::new(rand::random);

fn public(id: &[u8]) -> String {
    let digest = Sha256::new().chain_update(*KEY).chain_update(id).finalize();
    // 12 bytes are 16 characters.
    URL_SAFE_NO_PAD.encode(&digest[..12])
}

/// The bytes with the id of a CONNECT answer replaced; `None` when they hold none.
#[must_use]
pub fn rewrite(bytes: &[u8]) -> Option<Vec<u8>> {
    let at = bytes.windows(ANSWER.len()).position(|window| window == ANSWER)? + ANSWER.len();
    let id = bytes.get(at..at + ID)?;
    if bytes.get(at + ID) != Some(&b'"') {
        return None;
    }
    let mut rewritten = bytes.to_vec();
    rewritten[at..at + ID].copy_from_slice(public(id).as_bytes());
    Some(rewritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_replaced_and_nothing_else() {
        let bytes = b"2\x1e40{\"sid\":\"0123456789abcdef\"}\x1e42[1]";
        let rewritten = rewrite(bytes).unwrap();
        assert_eq!(rewritten.len(), bytes.len());
        assert_eq!(&rewritten[..12], &bytes[..12]);
        assert_ne!(&rewritten[12..28], &bytes[12..28]);
        assert_eq!(&rewritten[28..], &bytes[28..]);
        assert_eq!(rewrite(b"42[\"x\"]"), None);
        assert_eq!(rewrite(b"40{\"sid\":\"short\"}"), None);
    }
}

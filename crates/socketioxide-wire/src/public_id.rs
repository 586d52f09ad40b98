//! The id that a client learns of its own socket.
//!
//! The engine answers CONNECT with its session id, and whoever knows that can
//! speak as the client while it polls. Clients log their `socket.id` and show it
//! around; in Node.js it is another id, on purpose. So the answer is rewritten on
//! its way out: same length, but derived by a key that only this process knows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Characters of an engine session id.
const ID: usize = 16;
/// How the object of a CONNECT answer begins in the common parser's words.
const OBJECT: &[u8] = b"{\"sid\":\"";

/// The key of one process.
pub(crate) struct PublicIds([u8; 32]);

impl PublicIds {
    pub(crate) fn new() -> Self {
        Self(rand::random())
    }

    pub(crate) fn of(&self, id: &[u8]) -> String {
        let digest = Sha256::new().chain_update(self.0).chain_update(id).finalize();
        // 12 bytes are 16 characters.
        URL_SAFE_NO_PAD.encode(&digest[..12])
    }

    /// If this Engine.IO packet is a CONNECT answer: the same with the other id.
    pub(crate) fn rewrite(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let rest = packet.strip_prefix(b"40")?;
        // A namespace other than the main one stands before the object.
        let object = match rest.first()? {
            b'/' => rest.iter().position(|byte| *byte == b',')? + 1,
            _ => 0,
        };
        let id = rest.get(object..)?.strip_prefix(OBJECT)?;
        if id.get(ID..)? != b"\"}" {
            return None;
        }
        let mut rewritten = packet.to_vec();
        let at = packet.len() - ID - 2;
        rewritten[at..at + ID].copy_from_slice(self.of(&id[..ID]).as_bytes());
        Some(rewritten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_replaced_and_nothing_else() {
        let ids = PublicIds::new();
        for packet in ["40{\"sid\":\"0123456789abcdef\"}", "40/chat,{\"sid\":\"0123456789abcdef\"}"]
        {
            let rewritten = ids.rewrite(packet.as_bytes()).unwrap();
            assert_eq!(rewritten.len(), packet.len());
            let at = packet.find("0123").unwrap();
            assert_eq!(&rewritten[..at], &packet.as_bytes()[..at]);
            assert_ne!(&rewritten[at..at + 16], &packet.as_bytes()[at..at + 16]);
            assert_eq!(&rewritten[at + 16..], b"\"}");
        }
        for other in ["42[\"x\"]", "40{\"sid\":\"short\"}", "40", "40/x", "2", ""] {
            assert_eq!(ids.rewrite(other.as_bytes()), None, "{other}");
        }
    }
}

//! Between the kernel and the chat: connections, the Socket.IO engine, and the
//! one way in and the one way out.
//!
//! All that is odd about the engine (socketioxide 0.18, engineioxide 0.17) is
//! kept in here and in the crate [`socketioxide_wire`]:
//!
//! | what the engine does | what is done about it | where |
//! | --- | --- | --- |
//! | a client that stops reading is never dropped | writes never block; a byte and a time limit end the connection | [`socketioxide_wire`] |
//! | bursts above its channel are lost, and each message costs a task's wake-up | ready frames are written straight to the socket | [`socketioxide_wire`] |
//! | events of one client run concurrently | one queue and one task a socket, fed in the order of arrival | [`inbox`] |
//! | a socket can enter a room after it closed, and stays there | rooms are ours: only sockets that are registered are in them | [`hub`] |
//! | a failing disconnect handler leaks the socket | the handler can't fail: it closes the inbox | [`socketioxide_wire`] |
//! | events and ends that come before the connect handler runs are lost | the inbox is opened before the answer to CONNECT | [`engine`] |
//! | the socket id is the engine's secret session id | the answer to CONNECT names another id; others see neither | [`socketioxide_wire`] |
//! | WebSocket messages up to 64 MiB | the payload limit is set for both transports | [`engine`] |
//! | no way to close a transport without a Socket.IO disconnect | the connection below is ended | [`socketioxide_wire`] |

pub mod acceptor;
pub mod audience;
pub mod cluster;
pub mod crossing;
pub mod engine;
pub mod guard;
pub mod hub;
pub mod inbox;
pub mod mend;
pub mod order;
pub mod rust_cluster;

/// The address of the client: the peer's, or what a trusted proxy says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub std::net::IpAddr);

impl ClientAddr {
    /// What limits count by: of an IPv6 address its /64, since one household or
    /// one rented machine owns all addresses below that.
    #[must_use]
    pub fn network(self) -> std::net::IpAddr {
        match self.0 {
            std::net::IpAddr::V6(addr) => {
                let prefix = addr.to_bits() & !u128::from(u64::MAX);
                std::net::Ipv6Addr::from_bits(prefix).into()
            }
            v4 => v4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_ipv6_by_network() {
        let network = |text: &str| ClientAddr(text.parse().unwrap()).network().to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
    }
}

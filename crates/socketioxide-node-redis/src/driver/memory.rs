//! Several servers in one process, without Redis: for tests.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Channel, Driver, DriverError, Inbox, Routes, Topics};

/// What stands for Redis: all drivers of one broker reach each other.
#[derive(Debug, Clone, Default)]
pub struct MemoryBroker {
    servers: Arc<Mutex<Vec<Weak<Server>>>>,
}

#[derive(Debug, Default)]
struct Server {
    routes: Mutex<Routes>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    unpublished: u64,
}

/// The connection of one server.
#[derive(Debug, Clone)]
pub struct MemoryDriver {
    broker: MemoryBroker,
    server: Arc<Server>,
}

impl MemoryBroker {
    /// The connection of one more server.
    #[must_use]
    pub fn driver(&self) -> MemoryDriver {
        let server = Arc::new(Server::default());
        let mut servers = self.servers.lock();
        servers.retain(|server| server.strong_count() > 0);
        servers.push(Arc::downgrade(&server));
        MemoryDriver { broker: self.clone(), server }
    }

    /// Publishes from outside of all servers.
    pub fn publish(&self, channel: &Channel, payload: &Bytes) {
        for server in self.connected() {
            let routes = server.routes.lock();
            if let Some(inbox) = routes.channel(channel) {
                inbox.deliver(channel.name(), payload.clone());
            }
            if let Channel::Plain(name) = channel {
                for inbox in routes.prefixes(name) {
                    inbox.deliver(name, payload.clone());
                }
            }
        }
    }

    fn connected(&self) -> Vec<Arc<Server>> {
        let servers = self.servers.lock();
        servers.iter().filter_map(Weak::upgrade).filter(|server| !server.state.lock().cut).collect()
    }
}

impl MemoryDriver {
    /// Cuts the connection, or mends it.
    pub fn cut(&self, cut: bool) {
        let before = std::mem::replace(&mut self.server.state.lock().cut, cut);
        if before && !cut {
            self.server.routes.lock().inboxes().iter().for_each(Inbox::resubscribed);
        }
    }
}

#[async_trait]
impl Driver for MemoryDriver {
    fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), DriverError> {
        if self.server.state.lock().cut {
            self.server.state.lock().unpublished += 1;
        } else {
            self.broker.publish(&channel, &payload);
        }
        Ok(())
    }

    async fn subscribe(&self, topics: Topics, inbox: Inbox) -> Result<(), DriverError> {
        if self.server.state.lock().cut {
            return Err(DriverError::Connection("cut".into()));
        }
        self.server.routes.lock().add(&topics, &inbox);
        Ok(())
    }

    async fn unsubscribe(&self, topics: &Topics, inbox: &Inbox) -> Result<(), DriverError> {
        self.server.routes.lock().remove(topics, inbox);
        Ok(())
    }

    async fn subscribers(&self, channel: &Channel) -> Result<usize, DriverError> {
        if self.server.state.lock().cut {
            return Err(DriverError::Connection("cut".into()));
        }
        let there = |server: &Arc<Server>| server.routes.lock().channel(channel).is_some();
        Ok(self.broker.connected().iter().filter(|server| there(server)).count())
    }

    fn unpublished(&self) -> u64 {
        self.server.state.lock().unpublished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Received;
    use crate::protocol::{Dialect, Protocol};

    fn topics(protocol: Protocol) -> Topics {
        let (key, nsp, uid) = ("k".into(), "/a".into(), "uid".into());
        Dialect { protocol, key, nsp, uid, private_answers: false }.topics()
    }

    #[tokio::test]
    async fn unsubscribing_leaves_no_route() {
        for protocol in [Protocol::Classic, Protocol::Sharded] {
            let (broker, topics) = (MemoryBroker::default(), topics(protocol));
            let driver = broker.driver();
            let (inbox, mut outlet) = Inbox::new(9, 9);
            driver.subscribe(topics.clone(), inbox.clone()).await.unwrap();
            // Another one on the same channels takes them over, and keeps them.
            let (other, _other_outlet) = Inbox::new(9, 9);
            driver.subscribe(topics.clone(), other.clone()).await.unwrap();
            driver.unsubscribe(&topics, &inbox).await.unwrap();
            assert_eq!(driver.server.routes.lock().inboxes().len(), 1);
            assert_eq!(driver.subscribers(&topics.channels[0]).await.unwrap(), 1);
            driver.unsubscribe(&topics, &other).await.unwrap();
            let (prefixes, channels) = driver.server.routes.lock().topics();
            assert!(prefixes.is_empty() && channels.is_empty());
            drop(inbox);
            assert!(outlet.next().await.is_none(), "no route holds the inbox");
        }
    }

    #[tokio::test]
    async fn losses_are_told_though_nothing_follows() {
        let (inbox, mut outlet) = Inbox::new(2, 10);
        let waiting = tokio::spawn(async move { (outlet.next().await, outlet) });
        tokio::task::yield_now().await;
        inbox.lost(3);
        let (told, mut outlet) = waiting.await.unwrap();
        assert!(matches!(told, Some(Received::Lost(3))), "{told:?}");
        // Bytes are counted as long as they wait.
        for _ in 0..2 {
            inbox.deliver("c", Bytes::from_static(b"123456"));
            inbox.deliver("c", Bytes::from_static(b"12345"));
            inbox.deliver("c", Bytes::from_static(b"1234"));
            assert!(matches!(outlet.next().await, Some(Received::Lost(1))));
            for len in [6, 4] {
                let next = outlet.next().await;
                assert!(
                    matches!(next, Some(Received::Message { payload, .. }) if payload.len() == len)
                );
            }
        }
    }
}

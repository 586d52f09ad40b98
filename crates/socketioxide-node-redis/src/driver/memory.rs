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

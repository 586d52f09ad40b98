//! `message:*` and `reaction:*`.

use starling_chat::writer::Sending;
use starling_protocol::Failure;
use starling_protocol::event::{
    MessageDelete, MessageDelivered, MessageEdit, MessageRead, MessageSend, ReactionChange,
};
use starling_protocol::parse::from_json;

use super::{Answer, Connection, Gateway, with, yes};

impl Gateway {
    /// Puts a message into the writer's queue; the answer comes when it is stored.
    pub(super) async fn send(
        &self,
        connection: &Connection,
        payload: &str,
    ) -> Result<Sending, Failure> {
        let user = connection.link.who.user;
        match from_json::<MessageSend>(payload) {
            Ok(send) => self.chat.send(user, send).await,
            Err(failure) => {
                // Counts as a send, so that nonsense is no way round the limit.
                self.chat.count_send(user).await?;
                Err(failure)
            }
        }
    }

    pub(super) async fn delivered(&self, connection: &Connection, payload: &str) -> Answer {
        let request: MessageDelivered = from_json(payload)?;
        self.chat.delivered(connection.link.who.user, &request).await?;
        if let Some(delivery) = &connection.offline {
            delivery.arrived(request.room_id, &request.message_ids);
        }
        yes()
    }

    pub(super) async fn read(&self, connection: &Connection, payload: &str) -> Answer {
        let request: MessageRead = from_json(payload)?;
        let held = match &connection.offline {
            Some(delivery) => delivery.held(request.room_id),
            None => Vec::new(),
        };
        let link = &connection.link;
        with("lastReadSeq", self.chat.read(link.who.user, link.id, request, held).await?)
    }

    pub(super) async fn edit(&self, connection: &Connection, payload: &str) -> Answer {
        let request: MessageEdit = from_json(payload)?;
        let user = connection.link.who.user;
        with("message", self.chat.edit(user, request.message_id, &request.content).await?)
    }

    pub(super) async fn delete(&self, connection: &Connection, payload: &str) -> Answer {
        let request: MessageDelete = from_json(payload)?;
        self.chat.delete(connection.link.who.user, request.message_id).await?;
        yes()
    }

    pub(super) async fn add_reaction(&self, connection: &Connection, payload: &str) -> Answer {
        let r: ReactionChange = from_json(payload)?;
        let user = connection.link.who.user;
        with("reactions", self.chat.add_reaction(user, r.message_id, &r.emoji).await?)
    }

    pub(super) async fn remove_reaction(&self, connection: &Connection, payload: &str) -> Answer {
        let r: ReactionChange = from_json(payload)?;
        let user = connection.link.who.user;
        with("reactions", self.chat.remove_reaction(user, r.message_id, &r.emoji).await?)
    }
}

//! `typing:*` and `presence:*`.

use starling_protocol::event::{PresenceQuery, PresenceSet, RoomRef};
use starling_protocol::parse::from_json;

use super::{Answer, Connection, Gateway, with, yes};

impl Gateway {
    pub(super) async fn typing(
        &self,
        connection: &Connection,
        payload: &str,
        starts: bool,
    ) -> Answer {
        let RoomRef { room_id } = from_json(payload)?;
        let user = connection.link.who.user;
        if starts {
            self.chat.typing_started(user, room_id).await?;
        } else {
            self.chat.typing_stopped(user, room_id).await?;
        }
        yes()
    }

    pub(super) async fn set_presence(&self, connection: &Connection, payload: &str) -> Answer {
        let PresenceSet { status } = from_json(payload)?;
        self.chat.set_presence(connection.link.who.user, status).await?;
        yes()
    }

    pub(super) async fn query_presence(&self, connection: &Connection, payload: &str) -> Answer {
        let query: PresenceQuery = from_json(payload)?;
        with("presence", self.chat.query_presence(connection.link.who.user, &query).await?)
    }
}

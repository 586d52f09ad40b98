//! `room:*`.

use starling_protocol::event::{RoomRef, RoomSync};
use starling_protocol::parse::from_json;

use super::{Answer, Connection, Gateway, with, yes};

impl Gateway {
    pub(super) async fn join(&self, connection: &Connection, payload: &str) -> Answer {
        let RoomRef { room_id } = from_json(payload)?;
        let user = connection.link.who.user;
        self.chat.require_member(user, room_id).await?;
        self.hub.enter(&connection.link, room_id);
        // A removal between the check and the entry has already run: look again.
        let room = self.chat.room(user, room_id).await;
        match &room {
            Ok(room) => self.hub.begin(room_id, room.last_seq),
            Err(_) => self.hub.exit(&connection.link, room_id),
        }
        with("room", room?)
    }

    pub(super) async fn leave(&self, connection: &Connection, payload: &str) -> Answer {
        let RoomRef { room_id } = from_json(payload)?;
        self.chat.require_member(connection.link.who.user, room_id).await?;
        self.hub.exit(&connection.link, room_id);
        yes()
    }

    pub(super) async fn sync(&self, connection: &Connection, payload: &str) -> Answer {
        let request: RoomSync = from_json(payload)?;
        with("rooms", self.chat.sync(connection.link.who.user, &request).await?)
    }
}

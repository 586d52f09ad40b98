//! Delivered and read.

use starling_protocol::event::{
    MessageDelivered, MessageRead, MessageStatus, ReceiptStatus, RoomRead, ServerEvent,
};
use starling_protocol::{Failure, MessageId, RoomId, Timestamp, UserId, limits};
use starling_repository::Progress;

use crate::ports::{ConnectionId, Except, Target};
use crate::{Chat, no_room, storage, validate};

impl Chat {
    /// Messages arrived at a client.
    ///
    /// # Errors
    /// `validation_failed`, `not_found`, `unavailable`.
    pub async fn delivered(&self, user: UserId, request: &MessageDelivered) -> Result<(), Failure> {
        validate::count("messageIds", request.message_ids.len(), limits::DELIVERED_IDS)?;
        let now = Timestamp::now();
        let (room, ids) = (request.room_id, &request.message_ids);
        let rows = self.settings.receipt_rows_max_members;
        let progress = self
            .repository
            .delivered(user, room, ids, now, rows)
            .await
            .map_err(storage)?
            .ok_or_else(no_room)?;
        self.tell_senders(user, room, progress, ReceiptStatus::Delivered, now);
        Ok(())
    }

    /// Everything up to a message is read. Messages in `hold` are still to be
    /// sent to this connection, so they don't count as delivered by this.
    /// Returns the watermark, which never goes back.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn read(
        &self,
        user: UserId,
        connection: ConnectionId,
        request: MessageRead,
        hold: &[MessageId],
    ) -> Result<i64, Failure> {
        let now = Timestamp::now();
        let room = request.room_id;
        let outcome = self
            .repository
            .read(user, room, request.message_id, hold, now)
            .await
            .map_err(storage)?
            .ok_or_else(|| {
                Failure::not_found("There is no such message in a room that you are in.")
            })?;
        self.tell_senders(user, room, outcome.progress, ReceiptStatus::Read, now);
        if outcome.advanced {
            let read = RoomRead { room_id: room, last_read_seq: outcome.last_read_seq };
            let but = Except::Connection(connection);
            self.fanout.publish(Target::User(user), but, ServerEvent::RoomRead(read));
        }
        Ok(outcome.last_read_seq)
    }

    fn tell_senders(
        &self,
        user: UserId,
        room: RoomId,
        progress: Vec<Progress>,
        status: ReceiptStatus,
        at: Timestamp,
    ) {
        for Progress { sender_id, message_ids } in progress {
            let event = MessageStatus { room_id: room, message_ids, user_id: user, status, at };
            let event = ServerEvent::MessageStatus(event);
            self.fanout.publish(Target::User(sender_id), Except::Nobody, event);
        }
    }
}

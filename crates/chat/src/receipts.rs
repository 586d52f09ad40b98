//! Delivered and read.

use starling_protocol::event::{MessageDelivered, MessageRead};
use starling_protocol::{Failure, MessageId, UserId, limits};
use starling_repository::{Mark, MarkProgress, Marked};

use crate::ports::ConnectionId;
use crate::queue::Waiting;
use crate::{Chat, no_room, validate};

/// A delivery on its way into the database.
pub(crate) struct Delivering(Waiting<Marked>);

impl Delivering {
    pub(crate) async fn stored(self) -> Result<(), Failure> {
        match self.0.answer().await? {
            Marked::NotFound => Err(no_room()),
            Marked::Delivered | Marked::Read { .. } => Ok(()),
        }
    }
}

impl Chat {
    /// Messages arrived at a client. Returns when that is stored and the senders
    /// are told.
    ///
    /// # Errors
    /// `validation_failed`, `not_found`, `unavailable`.
    pub async fn delivered(&self, user: UserId, request: &MessageDelivered) -> Result<(), Failure> {
        self.enqueue_delivered(user, request.clone())?.stored().await
    }

    pub(crate) fn enqueue_delivered(
        &self,
        user: UserId,
        request: MessageDelivered,
    ) -> Result<Delivering, Failure> {
        validate::count("messageIds", request.message_ids.len(), limits::DELIVERED_IDS)?;
        let progress = MarkProgress::Delivered(request.message_ids);
        let mark = Mark { user_id: user, room_id: request.room_id, progress };
        Ok(Delivering(self.marks.enqueue(mark, None)?))
    }

    /// Everything up to a message is read. Messages in `held` are still to be
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
        held: Vec<MessageId>,
    ) -> Result<i64, Failure> {
        let progress = MarkProgress::Read { message: request.message_id, held };
        let mark = Mark { user_id: user, room_id: request.room_id, progress };
        match self.marks.enqueue(mark, Some(connection))?.answer().await? {
            Marked::Read { last_read_seq } => Ok(last_read_seq),
            Marked::Delivered | Marked::NotFound => {
                Err(Failure::not_found("There is no such message in a room that you are in."))
            }
        }
    }
}

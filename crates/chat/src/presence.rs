//! Who is there, and who types.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_protocol::event::{PresenceQuery, ReadyRoom, ServerEvent};
use starling_protocol::{Failure, Presence, PresenceStatus, RoomId, Timestamp, UserId, limits};

use tokio::time::MissedTickBehavior;

use crate::ports::{ConnectionId, Except, Target};
use crate::{Chat, storage, validate};

/// How often a process says that it lives: see [`Chat::keep_presence`].
pub const BEAT: Duration = Duration::from_secs(4);
/// Rounds of one refresh: each tells of a thousand users or so. What is left then
/// comes with the next beat.
const ROUNDS: usize = 64;

impl Chat {
    /// Takes part in the presence of all instances, for ever.
    pub async fn keep_presence(&self) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = self.presence.stirred() => {}
            }
            self.refresh_presence().await;
        }
    }

    /// Says that this process lives, and tells rooms what nobody else tells them.
    pub async fn refresh_presence(&self) {
        for _ in 0..ROUNDS {
            let news = self.presence.refresh().await;
            if news.is_empty() {
                return;
            }
            if let Err(error) = self.tell_news(news).await {
                tracing::warn!(%error, "some rooms were not told who came and went");
            }
        }
    }

    async fn tell_news(&self, news: Vec<Presence>) -> starling_repository::Result<()> {
        let mut gone: BTreeMap<Timestamp, Vec<UserId>> = BTreeMap::new();
        for presence in news.iter().filter(|p| p.status == PresenceStatus::Offline) {
            if let Some(time) = presence.last_seen {
                gone.entry(time).or_default().push(presence.user_id);
            }
        }
        for (time, users) in gone {
            self.repository.set_last_seen(&users, time).await?;
        }
        for presence in news {
            let rooms = self.repository.room_ids_of(presence.user_id).await?;
            self.tell_presence(rooms, presence);
        }
        Ok(())
    }

    /// A socket opened.
    pub async fn socket_opened(&self, user: UserId, connection: ConnectionId, rooms: &[ReadyRoom]) {
        if let Some(presence) = self.presence.opened(user, connection).await {
            let rooms = rooms.iter().map(|room| room.room_id).collect();
            self.tell_presence(rooms, presence);
        }
    }

    /// A socket closed: with the last one the user is offline.
    ///
    /// # Errors
    /// `unavailable` when the database could not be told; sockets were.
    pub async fn socket_closed(
        &self,
        user: UserId,
        connection: ConnectionId,
    ) -> Result<(), Failure> {
        let now = Timestamp::now();
        let Some(presence) = self.presence.closed(user, connection, now).await else {
            return Ok(());
        };
        self.typing.gone(user);
        let rooms = self.repository.room_ids_of(user).await.map_err(storage)?;
        self.repository.set_last_seen(&[user], now).await.map_err(storage)?;
        self.tell_presence(rooms, presence);
        Ok(())
    }

    /// The user says online or away.
    ///
    /// # Errors
    /// `validation_failed` for `offline`, `unavailable`.
    pub async fn set_presence(&self, user: UserId, status: PresenceStatus) -> Result<(), Failure> {
        if status == PresenceStatus::Offline {
            return Err(Failure::field("status", "must be online or away"));
        }
        if let Some(mut presence) = self.presence.set(user, status).await {
            let rooms = self.repository.room_ids_of(user).await.map_err(storage)?;
            let known = self.repository.users_by_ids(&[user]).await.map_err(storage)?;
            presence.last_seen = known.first().and_then(|user| user.last_seen);
            self.tell_presence(rooms, presence);
        }
        Ok(())
    }

    fn tell_presence(&self, rooms: Vec<RoomId>, presence: Presence) {
        if !rooms.is_empty() {
            let event = ServerEvent::PresenceUpdate(presence);
            self.fanout.publish(Target::Rooms(rooms), Except::Nobody, event);
        }
    }

    /// How others are: those who share a room with the caller.
    ///
    /// # Errors
    /// `validation_failed`, `unavailable`.
    pub async fn query_presence(
        &self,
        user: UserId,
        query: &PresenceQuery,
    ) -> Result<Vec<Presence>, Failure> {
        validate::count("userIds", query.user_ids.len(), limits::USER_IDS)?;
        let known = self.repository.sharing_a_room(user, &query.user_ids).await.map_err(storage)?;
        let users = self.repository.users_by_ids(&known).await.map_err(storage)?;
        let ids: Vec<UserId> = users.iter().map(|user| user.id).collect();
        let statuses = self.presence.query(&ids).await;
        Ok(users
            .into_iter()
            .zip(statuses)
            .map(|(user, (_, status))| Presence {
                user_id: user.id,
                status,
                last_seen: user.last_seen,
            })
            .collect())
    }

    /// The user types in a room, or goes on.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn typing_started(&self, user: UserId, room: RoomId) -> Result<(), Failure> {
        self.require_member(user, room).await?;
        self.typing.started(user, room);
        Ok(())
    }

    /// The user no longer types.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn typing_stopped(&self, user: UserId, room: RoomId) -> Result<(), Failure> {
        self.require_member(user, room).await?;
        self.typing.left(user, room);
        Ok(())
    }
}

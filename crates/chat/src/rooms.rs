//! Rooms, their members and roles.

use std::collections::BTreeSet;

use starling_protocol::event::{RoomRef, ServerEvent};
use starling_protocol::http::{MembersAdd, RoomCreate};
use starling_protocol::{Failure, Role, Room, RoomId, RoomType, Timestamp, UserId, limits};
use starling_repository::RoomLock;

use crate::ports::{Except, Target};
use crate::{Chat, no_room, storage, validate};

fn unknown_user(field: &str) -> Failure {
    Failure::field(field, "names a user that does not exist")
}

impl Chat {
    /// The caller's rooms, newest activity first.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn rooms(&self, user: UserId) -> Result<Vec<Room>, Failure> {
        self.repository.rooms_of(user).await.map_err(storage)
    }

    /// One of the caller's rooms, with its members.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn room(&self, user: UserId, room: RoomId) -> Result<Room, Failure> {
        self.repository.room_for(user, room).await.map_err(storage)?.ok_or_else(no_room)
    }

    /// Makes a room, or finds the direct room that the two share already: the
    /// flag says whether it is new.
    ///
    /// # Errors
    /// `validation_failed`, `conflict` when the caller is in too many rooms,
    /// `unavailable`.
    pub async fn create_room(
        &self,
        user: UserId,
        request: RoomCreate,
    ) -> Result<(Room, bool), Failure> {
        let now = Timestamp::now();
        validate::count("memberIds", request.member_ids.len(), 0..=limits::MEMBER_IDS)?;
        let others: BTreeSet<UserId> =
            request.member_ids.iter().copied().filter(|id| *id != user).collect();
        let (room, created) = match request.room_type {
            RoomType::Direct => {
                if request.name.is_some() {
                    return Err(Failure::field("name", "a direct room has no name"));
                }
                let (Some(other), 1) = (others.first(), request.member_ids.len()) else {
                    return Err(Failure::field("memberIds", "must name exactly one other user"));
                };
                if self.repository.direct_room(user, *other).await.map_err(storage)?.is_none() {
                    self.room_for_more(user, &[user, *other], "memberIds").await?;
                }
                self.repository
                    .create_direct(user, *other, now)
                    .await
                    .map_err(storage)?
                    .ok_or_else(|| unknown_user("memberIds"))?
            }
            RoomType::Group => {
                let name = request.name.as_deref().unwrap_or_default();
                validate::text("name", name, limits::ROOM_NAME_CHARS)?;
                let others: Vec<UserId> = others.into_iter().collect();
                let all: Vec<UserId> = others.iter().copied().chain([user]).collect();
                self.room_for_more(user, &all, "memberIds").await?;
                let room = self
                    .repository
                    .create_group(user, name, &others, now)
                    .await
                    .map_err(storage)?
                    .ok_or_else(|| unknown_user("memberIds"))?;
                (room, true)
            }
        };
        if created {
            let _order = self.room_order.lock(room).await;
            let members = self.repository.member_ids(room).await.map_err(storage)?;
            self.welcome(room, &members).await?;
        }
        Ok((self.room(user, room).await?, created))
    }

    /// Whether all of the users may be in one room more.
    async fn room_for_more(
        &self,
        caller: UserId,
        users: &[UserId],
        field: &str,
    ) -> Result<(), Failure> {
        let max = self.max_rooms_per_user;
        let full = self.repository.in_many_rooms(users, max).await.map_err(storage)?;
        match full.first() {
            None => Ok(()),
            Some(_) if full.contains(&caller) => Err(Failure::conflict(format!(
                "You are in {max} rooms, which is all that one can be in."
            ))),
            Some(user) => {
                Err(Failure::field(field, format!("user {user} is in too many rooms already")))
            }
        }
    }

    /// Sockets enter the room first, then the room is read: what is said in
    /// between reaches them either as an event or in the room's `lastSeq`.
    async fn welcome(&self, room: RoomId, users: &[UserId]) -> Result<(), Failure> {
        for user in users {
            self.fanout.join(*user, room);
        }
        for (user, room) in self.repository.rooms_for(users, room).await.map_err(storage)? {
            self.fanout.publish(Target::User(user), Except::Nobody, ServerEvent::RoomNew(room));
        }
        Ok(())
    }

    /// Each member gets the room as it sees it.
    async fn tell_updated(&self, room: RoomId, but: &[UserId]) -> Result<(), Failure> {
        let mut members = self.repository.member_ids(room).await.map_err(storage)?;
        members.retain(|member| !but.contains(member));
        for (user, room) in self.repository.rooms_for(&members, room).await.map_err(storage)? {
            self.fanout.publish(Target::User(user), Except::Nobody, ServerEvent::RoomUpdated(room));
        }
        Ok(())
    }

    /// The room, locked against other changes of its members, if the caller is
    /// in it; and the caller's role.
    async fn lock_as(&self, user: UserId, room: RoomId) -> Result<(RoomLock, Role), Failure> {
        let lock = self.repository.lock_room(room).await.map_err(storage)?.ok_or_else(no_room)?;
        let role = lock.roles().get(&user).copied().ok_or_else(no_room)?;
        Ok((lock, role))
    }

    /// Renames a group.
    ///
    /// # Errors
    /// `validation_failed`, `not_found`, `forbidden`, `unavailable`.
    pub async fn rename_room(
        &self,
        user: UserId,
        room: RoomId,
        name: &str,
    ) -> Result<Room, Failure> {
        validate::text("name", name, limits::ROOM_NAME_CHARS)?;
        let _order = self.room_order.lock(room).await;
        let (mut lock, role) = self.lock_as(user, room).await?;
        if lock.room_type() == RoomType::Direct {
            return Err(Failure::forbidden("A direct room has no name."));
        }
        if role < Role::Admin {
            return Err(Failure::forbidden("Only the owner and admins can rename a room."));
        }
        lock.rename(name).await.map_err(storage)?;
        lock.commit().await.map_err(storage)?;
        self.tell_updated(room, &[]).await?;
        self.room(user, room).await
    }

    /// Adds members; those present keep their role.
    ///
    /// # Errors
    /// `validation_failed` when one is unknown (nobody is added then),
    /// `not_found`, `forbidden`, `unavailable`.
    pub async fn add_members(
        &self,
        user: UserId,
        room: RoomId,
        request: &MembersAdd,
    ) -> Result<Room, Failure> {
        validate::count("userIds", request.user_ids.len(), 1..=limits::MEMBER_IDS)?;
        let _order = self.room_order.lock(room).await;
        let (mut lock, role) = self.lock_as(user, room).await?;
        if lock.room_type() == RoomType::Direct {
            return Err(Failure::forbidden("A direct room never gets a third member."));
        }
        if role < Role::Admin {
            return Err(Failure::forbidden("Only the owner and admins can add members."));
        }
        let new: BTreeSet<UserId> =
            request.user_ids.iter().copied().filter(|id| !lock.roles().contains_key(id)).collect();
        let new: Vec<UserId> = new.into_iter().collect();
        if !new.is_empty() {
            self.room_for_more(user, &new, "userIds").await?;
            if !lock.add(&new, Timestamp::now()).await.map_err(storage)? {
                return Err(unknown_user("userIds"));
            }
            lock.commit().await.map_err(storage)?;
            self.welcome(room, &new).await?;
            self.tell_updated(room, &new).await?;
        }
        self.room(user, room).await
    }

    /// Changes a member's role; `owner` hands the room over.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict`, `unavailable`.
    pub async fn set_role(
        &self,
        user: UserId,
        room: RoomId,
        member: UserId,
        role: Role,
    ) -> Result<Room, Failure> {
        let _order = self.room_order.lock(room).await;
        let (mut lock, mine) = self.lock_as(user, room).await?;
        if lock.room_type() == RoomType::Direct {
            return Err(Failure::forbidden("A direct room has no roles to change."));
        }
        if mine < Role::Owner {
            return Err(Failure::forbidden("Only the owner can change roles."));
        }
        let now = lock
            .roles()
            .get(&member)
            .copied()
            .ok_or_else(|| Failure::not_found("There is no such member in this room."))?;
        if now != role {
            if now == Role::Owner {
                return Err(Failure::conflict("Hand the room over first: make another the owner."));
            }
            if role == Role::Owner {
                lock.hand_over(user, member).await.map_err(storage)?;
            } else {
                lock.set_role(member, role).await.map_err(storage)?;
            }
            lock.commit().await.map_err(storage)?;
            self.tell_updated(room, &[]).await?;
        }
        self.room(user, room).await
    }

    /// Leaves a room, or removes somebody from it. Its sockets leave at once.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` when the owner would leave others
    /// behind, `unavailable`.
    pub async fn remove_member(
        &self,
        user: UserId,
        room: RoomId,
        member: UserId,
    ) -> Result<(), Failure> {
        let _order = self.room_order.lock(room).await;
        let (mut lock, mine) = self.lock_as(user, room).await?;
        let theirs = lock
            .roles()
            .get(&member)
            .copied()
            .ok_or_else(|| Failure::not_found("There is no such member in this room."))?;
        if user == member {
            let direct = lock.room_type() == RoomType::Direct;
            if !direct && mine == Role::Owner && lock.roles().len() > 1 {
                return Err(Failure::conflict("Hand the room over before you leave it."));
            }
        } else if lock.room_type() == RoomType::Direct {
            return Err(Failure::forbidden("Nobody can be removed from a direct room."));
        } else if mine < Role::Admin || mine <= theirs {
            return Err(Failure::forbidden("You can't remove this member."));
        }
        lock.remove(member, Timestamp::now()).await.map_err(storage)?;
        lock.commit().await.map_err(storage)?;
        self.fanout.leave(member, room);
        self.typing.left(member, room);
        let gone = ServerEvent::RoomRemoved(RoomRef { room_id: room });
        self.fanout.publish(Target::User(member), Except::Nobody, gone);
        self.tell_updated(room, &[]).await
    }
}

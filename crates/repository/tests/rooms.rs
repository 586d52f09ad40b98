#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod common;
use common::*;
use sqlx::PgPool;
use starling_protocol::{Role, RoomId, RoomType, SessionId, UserId};

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_group_has_its_creator_as_owner_and_each_member_once(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c) = (user(&r, "ann").await, user(&r, "bob").await, user(&r, "cat").await);
    let room = r.create_group(a, "Tea", &[b, a, b], at(1)).await.unwrap().unwrap();
    let view = r.room_for(b, room).await.unwrap().unwrap();
    let members: Vec<_> =
        view.members.as_ref().unwrap().iter().map(|m| (m.user_id, m.role)).collect();
    assert_eq!(members, [(a, Role::Owner), (b, Role::Member)]);
    assert_eq!((view.name.as_deref(), view.last_seq, view.unread_count), (Some("Tea"), 0, 0));
    assert_eq!((view.last_message, view.created_by, view.created_at), (None, a, at(1)));
    assert_eq!(r.create_group(a, "X", &[UserId(999)], at(1)).await.unwrap(), None);
    assert_eq!(r.create_group(UserId(999), "X", &[a], at(1)).await.unwrap(), None);
    assert_eq!(r.rooms_of(a).await.unwrap().len(), 1);
    assert_eq!(r.room_for(c, room).await.unwrap(), None);
    assert!(r.is_member(room, b).await.unwrap() && !r.is_member(room, c).await.unwrap());
    assert_eq!(r.sharing_a_room(a, &[a, b, c]).await.unwrap(), [a, b]);
    assert_eq!(r.sharing_a_room(c, &[c, a]).await.unwrap(), [c]);
    assert_eq!(r.room_ids_of(b).await.unwrap(), [room]);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn two_who_open_their_direct_room_at_once_get_the_same(pool: PgPool) {
    let r = repository(pool);
    let a = user(&r, "ann").await;
    for n in 0..15 {
        let b = user(&r, &format!("bob{n}")).await;
        let (x, y) = tokio::join!(r.create_direct(a, b, at(1)), r.create_direct(b, a, at(1)));
        let (x, y) = (x.unwrap().unwrap(), y.unwrap().unwrap());
        assert_eq!(x.0, y.0);
        assert!(x.1 != y.1, "one of them created it");
        assert_eq!(r.member_ids(x.0).await.unwrap(), [a, b]);
    }
    assert_eq!(r.create_direct(a, UserId(999), at(1)).await.unwrap(), None);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn who_left_a_direct_room_is_in_again_when_it_is_opened(pool: PgPool) {
    let r = repository(pool);
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let (room, _) = r.create_direct(a, b, at(1)).await.unwrap().unwrap();
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    assert_eq!((lock.room_type(), lock.created_by()), (RoomType::Direct, a));
    lock.remove(a, at(2)).await.unwrap();
    lock.commit().await.unwrap();
    assert_eq!(r.create_direct(b, a, at(3)).await.unwrap(), Some((room, false)));
    assert_eq!(r.member_ids(room).await.unwrap(), [a, b]);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn what_is_done_under_a_dropped_lock_is_undone(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c) = (user(&r, "ann").await, user(&r, "bob").await, user(&r, "cat").await);
    let room = group(&r, &[a, b]).await;
    assert!(r.lock_room(RoomId(999)).await.unwrap().is_none());
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    lock.rename("No").await.unwrap();
    assert!(lock.add(&[c], at(2)).await.unwrap());
    assert_eq!(lock.roles().get(&c), Some(&Role::Member));
    drop(lock);
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    assert!(!lock.add(&[c, UserId(999)], at(2)).await.unwrap());
    drop(lock);
    let view = r.room_for(a, room).await.unwrap().unwrap();
    assert_eq!((view.name.as_deref(), view.members.unwrap().len()), (Some("Group"), 2));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_room_never_has_two_owners(pool: PgPool) {
    let r = repository(pool);
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let room = group(&r, &[a, b]).await;
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    assert!(!lock.set_role(b, Role::Owner).await.unwrap_err().is_unavailable());
    drop(lock);
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    lock.set_role(a, Role::Admin).await.unwrap();
    lock.set_role(b, Role::Owner).await.unwrap();
    lock.rename("Ours").await.unwrap();
    lock.commit().await.unwrap();
    let lock = r.lock_room(room).await.unwrap().unwrap();
    assert_eq!(lock.roles().values().copied().collect::<Vec<_>>(), [Role::Admin, Role::Owner]);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_new_member_sees_all_and_has_nothing_unread(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c) = (user(&r, "ann").await, user(&r, "bob").await, user(&r, "cat").await);
    let room = group(&r, &[a, b]).await;
    for n in 0..3 {
        say(&r, room, a, &format!("{n}")).await;
    }
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    assert!(lock.add(&[c, b], at(5)).await.unwrap());
    lock.commit().await.unwrap();
    let views = r.rooms_for(&[a, b, c, UserId(99)], room).await.unwrap();
    let unread: Vec<_> = views.iter().map(|(u, v)| (*u, v.unread_count)).collect();
    assert_eq!(unread, [(a, 0), (b, 3), (c, 0)]);
    let receipts: Vec<_> =
        views.iter().map(|(_, v)| v.last_message.as_ref().unwrap().receipts.is_some()).collect();
    assert_eq!(receipts, [true, false, false]);
    let nobodys = SessionId(uuid::Uuid::nil());
    let arrival = r.arrival(c, nobodys, 10).await.unwrap();
    assert!(!arrival.alive && arrival.undelivered.is_empty());
    let cat = arrival.rooms[0];
    assert_eq!((cat.last_seq, cat.last_read_seq), (3, 3));
    assert_eq!(r.count_undelivered(c).await.unwrap(), 0);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn rooms_come_by_newest_activity_with_the_newest_message(pool: PgPool) {
    let r = repository(pool);
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let first = r.create_group(a, "First", &[b], at(1)).await.unwrap().unwrap();
    let second = r.create_group(a, "Second", &[b], at(2)).await.unwrap().unwrap();
    let ids = |rooms: &[starling_protocol::Room]| rooms.iter().map(|r| r.id).collect::<Vec<_>>();
    assert_eq!(ids(&r.rooms_of(a).await.unwrap()), [second, first]);
    let m = say(&r, first, a, "hi").await;
    r.add_reaction(b, m.id, "👍", at(20)).await.unwrap();
    let rooms = r.rooms_of(a).await.unwrap();
    assert_eq!(ids(&rooms), [first, second]);
    let last = rooms[0].last_message.as_ref().unwrap();
    assert_eq!((last.id, last.receipts.unwrap().recipients, last.reactions.len()), (m.id, 1, 1));
    assert!(rooms[0].members.is_none());
    let theirs = r.rooms_of(b).await.unwrap();
    assert_eq!((theirs[0].unread_count, theirs[1].unread_count), (1, 0));
    assert_eq!(theirs[0].last_message.as_ref().unwrap().receipts, None);
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod common;
use common::*;
use sqlx::PgPool;
use starling_protocol::{Message, MessageId, Receipts, RoomId, UserId};
use starling_repository::{OfflineCursor, Progress, Repository};
use uuid::Uuid;

async fn trio(r: &Repository) -> (UserId, UserId, UserId, RoomId) {
    let (a, b, c) = (user(r, "ann").await, user(r, "bob").await, user(r, "cat").await);
    (a, b, c, group(r, &[a, b, c]).await)
}

async fn receipts(r: &Repository, m: &Message) -> (i64, i64, i64) {
    let Receipts { recipients, delivered, read } =
        r.message_for(m.sender_id, m.id).await.unwrap().unwrap().receipts.unwrap();
    (recipients, delivered, read)
}

fn progress(sender_id: UserId, messages: &[&Message]) -> Progress {
    Progress { sender_id, message_ids: messages.iter().map(|m| m.id).collect() }
}

async fn missing(r: &Repository, user: UserId) -> Vec<MessageId> {
    let found = r.undelivered(user, None, 1000).await.unwrap();
    assert_eq!(r.count_undelivered(user).await.unwrap(), i64::try_from(found.len()).unwrap());
    found.iter().map(|u| u.message_id).collect()
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn delivered_marks_each_given_message_once(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c, room) = trio(&r).await;
    let other = group(&r, &[a, b]).await;
    let x = say(&r, room, a, "x").await;
    let y = say(&r, room, a, "y").await;
    let z = say(&r, room, c, "z").await;
    let mine = say(&r, room, b, "mine").await;
    let foreign = say(&r, other, a, "foreign").await;
    let ids = [z.id, mine.id, y.id, foreign.id, MessageId(Uuid::now_v7())];
    let got = r.delivered(b, room, &ids, at(20), ROWS).await.unwrap().unwrap();
    assert_eq!(got, [progress(a, &[&y]), progress(c, &[&z])]);
    assert_eq!(r.delivered(b, room, &ids, at(21), ROWS).await.unwrap(), Some(vec![]));
    assert_eq!(receipts(&r, &y).await, (2, 1, 0));
    assert_eq!(receipts(&r, &x).await, (2, 0, 0));
    assert_eq!(missing(&r, b).await, [x.id, foreign.id]);
    let d = user(&r, "dan").await;
    assert_eq!(r.delivered(d, room, &ids, at(22), ROWS).await.unwrap(), None);
    assert_eq!(r.delivered(b, room, &[], at(22), ROWS).await.unwrap(), Some(vec![]));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn reading_goes_up_to_a_message_and_never_back(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c, room) = trio(&r).await;
    let x = say(&r, room, a, "x").await;
    let y = say(&r, room, c, "y").await;
    let z = say(&r, room, a, "z").await;
    let out = r.read(b, room, y.id, &[], at(20)).await.unwrap().unwrap();
    assert_eq!((out.last_read_seq, out.advanced), (2, true));
    assert_eq!(out.progress, [progress(a, &[&x]), progress(c, &[&y])]);
    assert_eq!(receipts(&r, &x).await, (2, 1, 1));
    let out = r.read(b, room, x.id, &[], at(21)).await.unwrap().unwrap();
    assert_eq!((out.last_read_seq, out.advanced, out.progress), (2, false, vec![]));
    assert_eq!(r.room_for(b, room).await.unwrap().unwrap().unread_count, 1);
    let out = r.read(b, room, z.id, &[], at(22)).await.unwrap().unwrap();
    assert_eq!((out.last_read_seq, out.progress), (3, vec![progress(a, &[&z])]));
    let views = r.room_for(b, room).await.unwrap().unwrap();
    let bob = views.members.unwrap().into_iter().find(|m| m.user_id == b).unwrap();
    assert_eq!((bob.last_read_seq, bob.last_delivered_seq, views.unread_count), (3, 3, 0));
    assert_eq!(missing(&r, b).await, []);
    assert_eq!(r.read(b, RoomId(999), z.id, &[], at(23)).await.unwrap(), None);
    let other = group(&r, &[b]).await;
    assert_eq!(r.read(b, other, z.id, &[], at(23)).await.unwrap(), None);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn what_is_held_is_read_but_not_delivered(pool: PgPool) {
    let r = repository(pool);
    let (a, b, _, room) = trio(&r).await;
    let x = say(&r, room, a, "x").await;
    let y = say_with(&r, text(room, a, "y"), 0).await;
    let z = say(&r, room, a, "z").await;
    let out = r.read(b, room, z.id, &[x.id, y.id], at(20)).await.unwrap().unwrap();
    assert_eq!(out.progress, [progress(a, &[&x, &y, &z])]);
    assert_eq!(missing(&r, b).await, [x.id, y.id]);
    assert_eq!(receipts(&r, &x).await, (2, 0, 1));
    let got = r.delivered(b, room, &[x.id], at(21), ROWS).await.unwrap().unwrap();
    assert_eq!(got, [progress(a, &[&x])]);
    assert_eq!(missing(&r, b).await, [y.id]);
    r.read(b, room, z.id, &[], at(22)).await.unwrap();
    assert_eq!(missing(&r, b).await, []);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn in_a_large_room_delivered_means_everything_up_to_it(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c, room) = trio(&r).await;
    let x = say_with(&r, text(room, a, "x"), 2).await;
    let y = say_with(&r, text(room, c, "y"), 2).await;
    let z = say_with(&r, text(room, a, "z"), 2).await;
    assert_eq!(missing(&r, b).await, [x.id, y.id, z.id]);
    assert_eq!(missing(&r, c).await, [x.id, z.id]);
    let got = r.delivered(b, room, &[y.id], at(20), 2).await.unwrap().unwrap();
    assert_eq!(got, [progress(a, &[&x]), progress(c, &[&y])]);
    assert_eq!(r.delivered(b, room, &[x.id], at(21), 2).await.unwrap(), Some(vec![]));
    assert_eq!((receipts(&r, &x).await, receipts(&r, &z).await), ((2, 1, 0), (2, 0, 0)));
    assert_eq!(missing(&r, b).await, [z.id]);
    let out = r.read(b, room, z.id, &[], at(22)).await.unwrap().unwrap();
    assert_eq!(out.progress, [progress(a, &[&x, &z]), progress(c, &[&y])]);
    assert_eq!(receipts(&r, &z).await, (2, 1, 1));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_room_that_grew_or_shrank_loses_nothing(pool: PgPool) {
    let r = repository(pool);
    let (a, b, _, room) = trio(&r).await;
    let x = say_with(&r, text(room, a, "x"), 3).await;
    let y = say_with(&r, text(room, a, "y"), 2).await;
    let z = say_with(&r, text(room, a, "z"), 3).await;
    // Small again: z alone arrived.
    let got = r.delivered(b, room, &[z.id], at(20), 3).await.unwrap().unwrap();
    assert_eq!(got, [progress(a, &[&z])]);
    assert_eq!(missing(&r, b).await, [x.id, y.id]);
    // Large: x too, though it has a row.
    let got = r.delivered(b, room, &[y.id], at(21), 2).await.unwrap().unwrap();
    assert_eq!(got, [progress(a, &[&x, &y])]);
    assert_eq!(missing(&r, b).await, []);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn who_joins_later_is_no_recipient_and_who_left_still_counts(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c, room) = trio(&r).await;
    let d = user(&r, "dan").await;
    let x = say_with(&r, text(room, a, "x"), 0).await;
    r.read(b, room, x.id, &[], at(20)).await.unwrap();
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    lock.add(&[d], at(21)).await.unwrap();
    lock.remove(b, at(21)).await.unwrap();
    lock.remove(c, at(21)).await.unwrap();
    lock.commit().await.unwrap();
    assert_eq!(receipts(&r, &x).await, (2, 1, 1));
    assert_eq!(missing(&r, c).await, []);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn who_returns_reads_what_was_left_behind(pool: PgPool) {
    let r = repository(pool);
    let (a, b, _, room) = trio(&r).await;
    let x = say(&r, room, a, "x").await;
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    lock.remove(b, at(20)).await.unwrap();
    lock.commit().await.unwrap();
    say(&r, room, a, "y").await;
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    lock.add(&[b], at(21)).await.unwrap();
    lock.commit().await.unwrap();
    let z = say(&r, room, a, "z").await;
    assert_eq!(r.room_for(b, room).await.unwrap().unwrap().unread_count, 1);
    assert_eq!(missing(&r, b).await, [x.id, z.id]);
    let out = r.read(b, room, z.id, &[], at(22)).await.unwrap().unwrap();
    assert_eq!(out.progress, [progress(a, &[&x, &z])]);
    assert_eq!(receipts(&r, &x).await, (2, 1, 1));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn undelivered_pages_cover_all_once_across_rooms(pool: PgPool) {
    let r = repository(pool);
    let (a, b, _, room) = trio(&r).await;
    let other = group(&r, &[a, b]).await;
    let mut said = Vec::new();
    for n in 0..12 {
        let room = if n % 3 == 0 { other } else { room };
        let rows = if n % 2 == 0 { ROWS } else { 0 };
        let new =
            starling_repository::NewMessage { created_at: at(20 + n / 4), ..text(room, a, "x") };
        said.push(say_with(&r, new, rows).await);
    }
    said.sort_by_key(|m| (m.created_at, m.room_id, m.seq));
    let (mut got, mut cursor) = (Vec::new(), None);
    loop {
        let page = r.undelivered(b, cursor, 5).await.unwrap();
        let Some(last) = page.last() else { break };
        cursor = Some(OfflineCursor::after(last));
        got.extend(page.iter().map(|u| u.message_id));
    }
    assert_eq!(got, said.iter().map(|m| m.id).collect::<Vec<_>>());
    assert_eq!(r.count_undelivered(b).await.unwrap(), 12);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn reads_and_deliveries_of_one_user_at_once_tell_each_message_once(pool: PgPool) {
    let r = repository(pool);
    let (a, b, _, room) = trio(&r).await;
    let mut said = Vec::new();
    for _ in 0..30 {
        said.push(say(&r, room, a, "x").await);
    }
    let ids: Vec<MessageId> = said.iter().map(|m| m.id).collect();
    let newest = ids[29];
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (r, ids) = (r.clone(), ids.clone());
        tasks.spawn(async move {
            if n % 2 == 0 {
                r.delivered(b, room, &ids, at(30), ROWS).await.unwrap().unwrap();
                0
            } else {
                let out = r.read(b, room, newest, &[], at(30)).await.unwrap().unwrap();
                out.progress.iter().map(|p| p.message_ids.len()).sum()
            }
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<usize>(), 30);
    assert_eq!(receipts(&r, &said[0]).await, (2, 1, 1));
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod common;
use std::collections::BTreeSet;

use common::*;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use starling_protocol::{MessageId, RoomId};
use starling_repository::{Append, NewMessage, Repository};
use uuid::Uuid;

/// As many connections as the races below need.
async fn wide(pool: &PgPool, connections: u32) -> Repository {
    let options = pool.connect_options().as_ref().clone();
    let pool = PgPoolOptions::new().max_connections(connections).connect_with(options).await;
    repository(pool.unwrap())
}

async fn seqs(pool: &PgPool, room: RoomId) -> Vec<i64> {
    sqlx::query_scalar("SELECT seq FROM messages WHERE room_id = $1 ORDER BY seq")
        .bind(room.0)
        .fetch_all(pool)
        .await
        .unwrap()
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_batch_is_answered_in_its_order_and_refusals_take_no_seq(pool: PgPool) {
    let r = repository(pool.clone());
    let (a, b, c) = (user(&r, "ann").await, user(&r, "bob").await, user(&r, "cat").await);
    let one = group(&r, &[a, b]).await;
    let two = group(&r, &[b, a]).await;
    let first = say(&r, two, b, "there").await;
    let reply = |room, to| NewMessage { reply_to: Some(to), ..text(room, a, "re") };
    let batch = [
        text(two, a, "1"),
        text(one, c, "not in"),
        with_client(1, text(one, a, "2")),
        with_client(1, text(one, a, "2")),
        with_client(1, text(one, a, "other")),
        with_client(1, text(two, a, "2")),
        with_client(1, text(one, b, "another's")),
        reply(one, first.id),
        reply(two, first.id),
        reply(two, MessageId(Uuid::now_v7())),
        text(RoomId(999), a, "nowhere"),
    ];
    let answers = r.append(&batch, ROWS).await.unwrap();
    let kinds: Vec<String> = answers
        .iter()
        .map(|answer| match answer {
            Append::Stored(m) => format!("stored {} {}", m.room_id, m.seq),
            Append::Repeated(m) => format!("repeated {} {}", m.room_id, m.seq),
            other => format!("{other:?}"),
        })
        .collect();
    let (o, t) = (one, two);
    assert_eq!(
        kinds,
        [
            format!("stored {t} 2"),
            "NotMember".into(),
            format!("stored {o} 1"),
            format!("repeated {o} 1"),
            "Conflict".into(),
            "Conflict".into(),
            format!("stored {o} 2"),
            "ReplyNotFound".into(),
            format!("stored {t} 3"),
            "ReplyNotFound".into(),
            "NotMember".into(),
        ]
    );
    for answer in &answers {
        if let Append::Stored(m) | Append::Repeated(m) = answer {
            assert_eq!(r.message_for(m.sender_id, m.id).await.unwrap().as_ref(), Some(m));
        }
    }
    assert_eq!((seqs(&pool, one).await, seqs(&pool, two).await), (vec![1, 2], vec![1, 2, 3]));
    assert!(r.append(&[], ROWS).await.unwrap().is_empty());
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_repeat_answers_the_message_as_it_is_now(pool: PgPool) {
    let r = repository(pool.clone());
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let room = group(&r, &[a, b]).await;
    let again = |content: &str| with_client(7, text(room, a, content));
    let m = say_with(&r, again("x"), ROWS).await;
    r.read(b, room, m.id, &[], at(12)).await.unwrap();
    let append = |new: NewMessage| {
        let r = r.clone();
        async move { r.append(&[new], ROWS).await.unwrap().pop().unwrap() }
    };
    let Append::Repeated(now) = append(again("x")).await else { panic!("not repeated") };
    assert_eq!((now.id, now.receipts.unwrap().read), (m.id, 1));
    assert_eq!(append(again("y")).await, Append::Conflict);
    r.edit(a, m.id, "z", at(13)).await.unwrap();
    let Append::Repeated(now) = append(again("y")).await else { panic!("not repeated") };
    assert_eq!(now.content, "z");
    r.delete(a, m.id, at(14)).await.unwrap();
    assert!(matches!(append(again("x")).await, Append::Repeated(_)));
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    lock.remove(a, at(15)).await.unwrap();
    lock.commit().await.unwrap();
    assert_eq!(append(again("x")).await, Append::NotMember);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn times_never_run_against_seq_and_content_is_verbatim(pool: PgPool) {
    let r = repository(pool);
    let a = user(&r, "ann").await;
    let room = group(&r, &[a]).await;
    let late = say_with(&r, NewMessage { created_at: at(100), ..text(room, a, "a") }, ROWS).await;
    let early = NewMessage { created_at: at(50), ..text(room, a, " \u{1F426}\u{301}\r\n\t ") };
    let metadata = serde_json::json!({"b": [1, 2.5, null], "a": {"é": "\u{1}"}});
    let early = NewMessage { metadata: metadata.as_object().unwrap().clone(), ..early };
    let second = say_with(&r, early, ROWS).await;
    assert_eq!((late.created_at, second.created_at), (at(100), at(100)));
    assert_eq!(r.message_for(a, second.id).await.unwrap(), Some(second));
    let error = r.append(&[text(room, a, "a\0b")], ROWS).await.unwrap_err();
    assert!(!error.is_unavailable(), "{error:?}");
    let error = r.append(&[text(room, a, &"é".repeat(4001))], ROWS).await.unwrap_err();
    assert!(!error.is_unavailable(), "{error:?}");
    assert_eq!(say(&r, room, a, &"é".repeat(4000)).await.seq, 3);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn receipt_rows_are_made_for_the_other_members_of_small_rooms(pool: PgPool) {
    let r = repository(pool.clone());
    let (a, b, c) = (user(&r, "ann").await, user(&r, "bob").await, user(&r, "cat").await);
    let room = group(&r, &[a, b, c]).await;
    let small = say_with(&r, text(room, a, "rows"), 3).await;
    let large = say_with(&r, text(room, a, "none"), 2).await;
    let rows: Vec<(Uuid, i32)> =
        sqlx::query_as("SELECT message_id, user_id FROM message_receipts ORDER BY user_id")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(rows, [(small.id.0, b.0), (small.id.0, c.0)]);
    assert_eq!((small.receipts.unwrap().recipients, large.receipts.unwrap().recipients), (2, 2));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn fifty_writers_at_once_leave_no_gap(pool: PgPool) {
    let r = wide(&pool, 30).await;
    let mut people = Vec::new();
    for n in 0..50 {
        people.push(user(&r, &format!("user{n}")).await);
    }
    let room = group(&r, &people).await;
    let mut tasks = tokio::task::JoinSet::new();
    for person in people {
        let r = r.clone();
        tasks.spawn(async move {
            let mut last = 0;
            for n in 0..10 {
                let m = say(&r, room, person, &format!("{n}")).await;
                assert!(m.seq > last);
                last = m.seq;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(seqs(&pool, room).await, (1..=500).collect::<Vec<i64>>());
    let sorted: bool = sqlx::query_scalar(
        "SELECT coalesce(bool_and(ok), true) FROM (SELECT created_at >= lag(created_at) OVER (ORDER BY seq) AS ok FROM messages) s",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(sorted);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn the_same_client_id_twice_at_once_is_one_message(pool: PgPool) {
    let r = wide(&pool, 12).await;
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let room = group(&r, &[a, b]).await;
    for n in 0..20 {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (r, new) = (r.clone(), with_client(n, text(room, a, "same")));
            tasks.spawn(async move { r.append(&[new], ROWS).await.unwrap().pop().unwrap() });
        }
        let answers = tasks.join_all().await;
        let stored = answers.iter().filter(|a| matches!(a, Append::Stored(_))).count();
        let repeated = answers.iter().filter(|a| matches!(a, Append::Repeated(_))).count();
        assert_eq!((stored, repeated), (1, 7));
    }
    assert_eq!(seqs(&pool, room).await, (1..=20).collect::<Vec<i64>>());
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn the_same_client_ids_in_different_rooms_at_once_never_deadlock(pool: PgPool) {
    let r = wide(&pool, 12).await;
    let a = user(&r, "ann").await;
    let rooms = [group(&r, &[a]).await, group(&r, &[a]).await, group(&r, &[a]).await];
    for round in 0..15u128 {
        let mut tasks = tokio::task::JoinSet::new();
        for (place, room) in rooms.into_iter().enumerate() {
            let mut batch: Vec<NewMessage> =
                (0..20).map(|n| with_client(round * 100 + n, text(room, a, "same"))).collect();
            if place == 1 {
                batch.reverse();
            }
            let r = r.clone();
            tasks.spawn(async move { r.append(&batch, ROWS).await.unwrap() });
        }
        let answers = tasks.join_all().await;
        let stored = answers.iter().flatten().filter(|a| matches!(a, Append::Stored(_))).count();
        let conflicts = answers.iter().flatten().filter(|a| matches!(a, Append::Conflict)).count();
        assert_eq!((stored, conflicts), (20, 40));
    }
    for room in rooms {
        let seqs = seqs(&pool, room).await;
        assert_eq!(seqs, (1..=i64::try_from(seqs.len()).unwrap()).collect::<Vec<_>>());
    }
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn batches_over_the_same_rooms_in_opposite_order_never_deadlock(pool: PgPool) {
    let r = wide(&pool, 16).await;
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let mut rooms = Vec::new();
    for _ in 0..10 {
        rooms.push(group(&r, &[a, b]).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..12 {
        let (r, mut rooms) = (r.clone(), rooms.clone());
        if n % 2 == 0 {
            rooms.reverse();
        }
        tasks.spawn(async move {
            for _ in 0..10 {
                let batch: Vec<_> = rooms.iter().map(|room| text(*room, a, "x")).collect();
                for (answer, room) in r.append(&batch, ROWS).await.unwrap().iter().zip(&rooms) {
                    assert!(matches!(answer, Append::Stored(m) if m.room_id == *room));
                }
                // Readers and changes of members among them.
                let room = rooms[0];
                let newest = r.rooms_of(b).await.unwrap()[0].last_message.clone().unwrap();
                r.read(b, newest.room_id, newest.id, &[], at(20)).await.unwrap();
                let mut lock = r.lock_room(room).await.unwrap().unwrap();
                lock.rename("New").await.unwrap();
                lock.commit().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    for room in rooms {
        assert_eq!(seqs(&pool, room).await, (1..=120).collect::<Vec<i64>>());
    }
    let distinct: BTreeSet<i64> = [120].into();
    let heads: Vec<i64> =
        sqlx::query_scalar("SELECT DISTINCT last_seq FROM rooms").fetch_all(&pool).await.unwrap();
    assert_eq!(heads.into_iter().collect::<BTreeSet<_>>(), distinct);
}

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
//! `db/compat` on Starling's own schema: peers that insert messages without `seq`.

mod common;

use common::*;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use starling_protocol::{RoomId, UserId};
use starling_repository::{COMPAT_INSTALL, COMPAT_REMOVE};
use uuid::Uuid;

// The plain INSERTs of a peer leave out what the schema demands, so macros, which
// would check them against it, have nothing to say here.
const PLAIN: &str =
    "INSERT INTO messages (id, room_id, sender_id, content) VALUES ($1, $2, $3, $4)";

async fn plain(pool: &PgPool, id: Uuid, room: RoomId, sender: UserId) -> sqlx::Result<()> {
    let insert = sqlx::query(PLAIN).bind(id).bind(room.0).bind(sender.0).bind("plain");
    insert.execute(pool).await.map(|_| ())
}

async fn heads(pool: &PgPool, room: RoomId) -> (Vec<i64>, i64) {
    let seqs = sqlx::query_scalar("SELECT seq FROM messages WHERE room_id = $1 ORDER BY seq")
        .bind(room.0)
        .fetch_all(pool)
        .await
        .unwrap();
    let last = sqlx::query_scalar("SELECT last_seq FROM rooms WHERE id = $1")
        .bind(room.0)
        .fetch_one(pool)
        .await
        .unwrap();
    (seqs, last)
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn plain_inserts_and_starlings_own_share_one_gapless_order(pool: PgPool) {
    sqlx::raw_sql(COMPAT_INSTALL).execute(&pool).await.unwrap();
    // Once more does nothing new.
    sqlx::raw_sql(COMPAT_INSTALL).execute(&pool).await.unwrap();
    let options = pool.connect_options().as_ref().clone();
    let wide = PgPoolOptions::new().max_connections(20).connect_with(options).await.unwrap();
    let r = repository(wide.clone());
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let room = group(&r, &[a, b]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (pool, r) = (wide.clone(), r.clone());
        tasks.spawn(async move {
            for _ in 0..10 {
                plain(&pool, Uuid::now_v7(), room, a).await.unwrap();
            }
        });
        tasks.spawn(async move {
            for _ in 0..10 {
                say(&r, room, b, "own").await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let (seqs, last) = heads(&pool, room).await;
    assert_eq!(seqs, (1..=200).collect::<Vec<i64>>());
    assert_eq!(last, 200);
    let backwards: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM messages m JOIN messages n ON n.seq = m.seq + 1
         WHERE n.created_at < m.created_at OR m.recipients <> 1",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(backwards, 0);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn what_is_not_stored_takes_no_number(pool: PgPool) {
    sqlx::raw_sql(COMPAT_INSTALL).execute(&pool).await.unwrap();
    let r = repository(pool.clone());
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let room = group(&r, &[a, b]).await;
    let id = Uuid::now_v7();
    plain(&pool, id, room, a).await.unwrap();
    assert!(plain(&pool, id, room, a).await.is_err());
    for sql in [
        format!("{PLAIN} ON CONFLICT DO NOTHING"),
        format!("{PLAIN} ON CONFLICT (id) DO UPDATE SET content = excluded.content"),
    ] {
        let sql = sqlx::AssertSqlSafe(sql);
        sqlx::query(sql)
            .bind(id)
            .bind(room.0)
            .bind(a.0)
            .bind("again")
            .execute(&pool)
            .await
            .unwrap();
    }
    let client = Uuid::now_v7();
    for _ in 0..2 {
        sqlx::query(
            "INSERT INTO messages (id, room_id, sender_id, content, client_id)
             VALUES ($1, $2, $3, 'once', $4)
             ON CONFLICT (sender_id, client_id) WHERE client_id IS NOT NULL DO NOTHING",
        )
        .bind(Uuid::now_v7())
        .bind(room.0)
        .bind(a.0)
        .bind(client)
        .execute(&pool)
        .await
        .unwrap();
    }
    let mut tx = pool.begin().await.unwrap();
    let insert = sqlx::query(PLAIN).bind(Uuid::now_v7()).bind(room.0).bind(a.0).bind("undone");
    insert.execute(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    let nowhere = plain(&pool, Uuid::now_v7(), RoomId(999), a).await.unwrap_err();
    assert!(nowhere.as_database_error().unwrap().is_foreign_key_violation());
    say(&r, room, b, "own").await;
    assert_eq!(heads(&pool, room).await, (vec![1, 2, 3], 3));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn rooms_and_members_of_plain_inserts_are_complete(pool: PgPool) {
    sqlx::raw_sql(COMPAT_INSTALL).execute(&pool).await.unwrap();
    let r = repository(pool.clone());
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let room: i32 = sqlx::query_scalar(
        "INSERT INTO rooms (name, room_type, created_by, created_at)
         VALUES ('Plain', 'group', $1, now()) RETURNING id",
    )
    .bind(a.0)
    .fetch_one(&pool)
    .await
    .unwrap();
    let join = "INSERT INTO room_members (room_id, user_id, role, joined_at)
                VALUES ($1, $2, 'member', now())";
    sqlx::query(join).bind(room).bind(a.0).execute(&pool).await.unwrap();
    plain(&pool, Uuid::now_v7(), RoomId(room), a).await.unwrap();
    sqlx::query(join).bind(room).bind(b.0).execute(&pool).await.unwrap();
    let room = r.room_for(b, RoomId(room)).await.unwrap().unwrap();
    assert_eq!((room.last_seq, room.unread_count), (1, 0));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn nothing_is_left_of_it_when_it_is_removed(pool: PgPool) {
    let traces = "SELECT
        (SELECT count(*) FROM pg_proc WHERE proname LIKE 'starling%')
        + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'starling%')";
    assert_eq!(sqlx::query_scalar::<_, i64>(traces).fetch_one(&pool).await.unwrap(), 0);
    sqlx::raw_sql(COMPAT_INSTALL).execute(&pool).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(traces).fetch_one(&pool).await.unwrap(), 10);
    sqlx::raw_sql(COMPAT_REMOVE).execute(&pool).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(traces).fetch_one(&pool).await.unwrap(), 0);
    let r = repository(pool.clone());
    let a = user(&r, "ann").await;
    let room = group(&r, &[a]).await;
    assert!(plain(&pool, Uuid::now_v7(), room, a).await.is_err());
}

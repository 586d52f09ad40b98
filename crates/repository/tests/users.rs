#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod common;
use std::time::Duration;

use common::*;
use sqlx::PgPool;
use starling_protocol::{SessionId, UserId};
use starling_repository::{
    CreateUser, NewUser, OpenSocket, PoolSettings, Repository, Rotation, Swept,
};
use uuid::Uuid;

fn new(name: &str, email: &str) -> NewUser {
    NewUser {
        username: name.into(),
        email: email.into(),
        password_hash: "hash".into(),
        display_name: "Ann".into(),
        created_at: at(0),
    }
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn names_and_addresses_are_unique_without_regard_to_case(pool: PgPool) {
    let r = repository(pool);
    let CreateUser::Created(ann) = r.create_user(new("Ann", "Ann@x.org")).await.unwrap() else {
        panic!("not created")
    };
    assert_eq!(ann.email.as_deref(), Some("Ann@x.org"));
    assert_eq!(r.create_user(new("aNN", "b@x.org")).await.unwrap(), CreateUser::UsernameTaken);
    assert_eq!(r.create_user(new("bob", "ann@X.org")).await.unwrap(), CreateUser::EmailTaken);
    for login in ["ann", "ANN", "ann@x.ORG"] {
        assert_eq!(r.credentials(login).await.unwrap().unwrap().user_id, ann.id, "{login}");
    }
    assert!(r.credentials("nobody").await.unwrap().is_none());
    assert!(r.credentials("a\0b").await.unwrap().is_none());
    assert_eq!(r.user(ann.id).await.unwrap(), Some(ann));
    assert_eq!(r.user(UserId(999)).await.unwrap(), None);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn people_are_found_by_prefix_and_wildcards_are_letters(pool: PgPool) {
    let r = repository(pool);
    let a = user(&r, "alice").await;
    let b = user(&r, "al_x").await;
    user(&r, "bob").await;
    r.update_user(b, Some("50% Zoe"), None).await.unwrap();
    let ids = |users: Vec<starling_protocol::User>| users.iter().map(|u| u.id).collect::<Vec<_>>();
    assert_eq!(ids(r.search_users("AL", 10).await.unwrap()), [b, a]);
    assert_eq!(ids(r.search_users("al_", 10).await.unwrap()), [b]);
    assert_eq!(ids(r.search_users("50%", 10).await.unwrap()), [b]);
    assert_eq!(ids(r.search_users("%", 10).await.unwrap()), []);
    assert_eq!(r.search_users("al", 1).await.unwrap().len(), 1);
    let some = r.users_by_ids(&[b, a, UserId(999)]).await.unwrap();
    assert!(some.len() == 2 && some.iter().all(|u| u.email.is_none()));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_profile_changes_only_where_it_is_told(pool: PgPool) {
    let r = repository(pool);
    let a = user(&r, "alice").await;
    let u = r.update_user(a, None, Some(Some("http://x"))).await.unwrap().unwrap();
    assert_eq!((u.display_name.as_str(), u.avatar_url.as_deref()), ("ALICE", Some("http://x")));
    let u = r.update_user(a, Some("Al"), None).await.unwrap().unwrap();
    assert_eq!((u.display_name.as_str(), u.avatar_url.as_deref()), ("Al", Some("http://x")));
    let u = r.update_user(a, None, Some(None)).await.unwrap().unwrap();
    assert_eq!(u.avatar_url, None);
    assert_eq!(r.update_user(UserId(99), None, None).await.unwrap(), None);
    r.set_last_seen(&[a], at(50)).await.unwrap();
    r.set_last_seen(&[a], at(40)).await.unwrap();
    assert_eq!(r.user(a).await.unwrap().unwrap().last_seen, Some(at(50)));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_refresh_token_serves_once(pool: PgPool) {
    let r = repository(pool);
    let user = user(&r, "alice").await;
    let session = SessionId(Uuid::now_v7());
    r.create_login(session, user, &[1; 32], at(0), at(100)).await.unwrap();
    assert!(r.login_alive(session).await.unwrap());
    let rotated = r.rotate_refresh(&[1; 32], &[2; 32], at(1), at(101)).await.unwrap();
    assert_eq!(rotated, Rotation::Rotated { session, user });
    assert_eq!(
        r.rotate_refresh(&[9; 32], &[3; 32], at(1), at(101)).await.unwrap(),
        Rotation::Unknown
    );
    let expired = r.rotate_refresh(&[2; 32], &[3; 32], at(101), at(200)).await.unwrap();
    assert_eq!(expired, Rotation::Unknown);
    let reused = r.rotate_refresh(&[1; 32], &[3; 32], at(2), at(102)).await.unwrap();
    assert_eq!(reused, Rotation::Reused { session, user });
    assert!(!r.login_alive(session).await.unwrap());
    assert_eq!(
        r.rotate_refresh(&[2; 32], &[4; 32], at(3), at(103)).await.unwrap(),
        Rotation::Unknown
    );
    assert_eq!(r.end_login(session, at(4)).await.unwrap(), None);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_login_ends_once(pool: PgPool) {
    let r = repository(pool);
    let user = user(&r, "alice").await;
    let session = SessionId(Uuid::now_v7());
    r.create_login(session, user, &[1; 32], at(0), at(100)).await.unwrap();
    assert_eq!(r.end_login(session, at(1)).await.unwrap(), Some(user));
    assert_eq!(r.end_login(session, at(2)).await.unwrap(), None);
    assert_eq!(
        r.rotate_refresh(&[1; 32], &[2; 32], at(3), at(9)).await.unwrap(),
        Rotation::Unknown
    );
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn of_two_refreshes_at_once_one_rotates_and_one_ends_the_session(pool: PgPool) {
    let r = repository(pool);
    let user = user(&r, "alice").await;
    for n in 0..20u8 {
        let session = SessionId(Uuid::now_v7());
        let old = [n; 32];
        r.create_login(session, user, &old, at(0), at(100)).await.unwrap();
        let (new_a, new_b) = ([100 + n; 32], [200 + n; 32]);
        let (a, b) = tokio::join!(
            r.rotate_refresh(&old, &new_a, at(1), at(100)),
            r.rotate_refresh(&old, &new_b, at(1), at(100)),
        );
        let both = [a.unwrap(), b.unwrap()];
        assert!(both.contains(&Rotation::Rotated { session, user }), "{both:?}");
        assert!(both.contains(&Rotation::Reused { session, user }), "{both:?}");
        assert!(!r.login_alive(session).await.unwrap());
    }
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn sockets_come_and_go(pool: PgPool) {
    let r = repository(pool.clone());
    let user = user(&r, "alice").await;
    let open = |ids: &[&str]| -> Vec<OpenSocket> {
        ids.iter()
            .map(|id| OpenSocket { user, socket_id: (*id).to_owned(), connected_at: at(0) })
            .collect()
    };
    let left = async || -> Vec<String> {
        sqlx::query_scalar("SELECT socket_id FROM user_sessions ORDER BY socket_id")
            .fetch_all(&pool)
            .await
            .unwrap()
    };
    let lease = Duration::from_secs(60);
    for instance in ["a", "b", "c"] {
        assert!(!r.renew_instance(instance, lease).await.unwrap());
        assert!(r.renew_instance(instance, lease).await.unwrap());
    }
    let mut some = open(&["s1", "s2"]);
    some.push(OpenSocket { user: UserId(999), ..some[0].clone() });
    some[2].socket_id = "of nobody".to_owned();
    r.sockets_changed("a", &some, &[]).await.unwrap();
    r.sockets_changed("b", &open(&["s3"]), &[]).await.unwrap();
    r.sockets_changed("c", &open(&["s4"]), &[]).await.unwrap();
    // Of another program: it renews no lease.
    r.sockets_changed("node", &open(&["s5", "s6"]), &[]).await.unwrap();
    let closed = ["s1", "unknown"].map(str::to_owned);
    r.sockets_changed("a", &open(&["s7", "s2"]), &closed).await.unwrap();
    r.sockets_are("a", &open(&["s2", "s8"])).await.unwrap();
    r.forget_instance("c").await.unwrap();
    assert_eq!(left().await, ["s2", "s3", "s5", "s6", "s8"]);

    assert_eq!(r.sweep_instances().await.unwrap(), Swept::default());
    assert!(r.renew_instance("b", Duration::ZERO).await.unwrap());
    let swept = Swept { instances: vec!["b".to_owned()], sockets: 1 };
    assert_eq!(r.sweep_instances().await.unwrap(), swept);
    assert!(!r.renew_instance("b", lease).await.unwrap());
    sqlx::query("UPDATE user_sessions SET last_heartbeat = connected_at")
        .execute(&pool)
        .await
        .unwrap();
    r.heartbeat("node", at(30)).await.unwrap();
    sqlx::query("UPDATE user_sessions SET last_heartbeat = connected_at WHERE socket_id = 's5'")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(r.forget_stale(at(20)).await.unwrap(), 1);
    assert_eq!(left().await, ["s2", "s6", "s8"]);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn seeds_can_be_sown_twice(pool: PgPool) {
    let r = repository(pool);
    let users = r.bulk_users(50, "hash", "load", at(0)).await.unwrap();
    assert_eq!((users.len(), users[49].1.as_str()), (50, "load50"));
    assert_eq!(r.bulk_users(50, "hash", "load", at(0)).await.unwrap(), users);
    let ids: Vec<UserId> = users.iter().map(|(id, _)| *id).collect();
    let rooms = r
        .bulk_rooms(&[ids[..3].to_vec(), vec![], ids[5..9].to_vec()], "Room", at(1))
        .await
        .unwrap();
    assert_eq!(rooms.len(), 2);
    assert_eq!(r.member_ids(rooms[1]).await.unwrap(), ids[5..9]);
    let session = SessionId(Uuid::now_v7());
    r.bulk_logins(&[(session, ids[0])], at(1), at(100)).await.unwrap();
    assert!(r.login_alive(session).await.unwrap());
    let more = group(&r, &ids[..2]).await;
    assert!(more > rooms[1]);
}

#[tokio::test]
async fn connecting_succeeds_while_the_database_is_down_and_calls_say_so() {
    let url = "postgres://nobody@127.0.0.1:1/nothing".to_owned();
    let r = Repository::connect(&PoolSettings { url, max: 2, min: 0 }).unwrap();
    let begun = std::time::Instant::now();
    assert!(r.ping().await.unwrap_err().is_unavailable());
    assert!(begun.elapsed() < std::time::Duration::from_secs(4));
    assert_eq!(r.pool_state().1, 0);
    assert!(Repository::connect(&PoolSettings { url: "what?".into(), max: 1, min: 0 }).is_err());
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn connections_that_the_server_ended_are_replaced(pool: PgPool) {
    let name: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&pool).await.unwrap();
    let base = std::env::var("DATABASE_URL").unwrap();
    let url = format!("{}/{name}", base.rsplit_once('/').unwrap().0);
    let r = Repository::connect(&PoolSettings { url, max: 3, min: 1 }).unwrap();
    let migrating = r.clone();
    tokio::spawn(async move { migrating.migrate().await }).await.unwrap().unwrap();
    r.ping().await.unwrap();
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid))
         FROM pg_stat_activity
         WHERE application_name = 'starling'
           AND datname = current_database()",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(ended > 0);
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    for _ in 0..5 {
        r.ping().await.unwrap();
    }
    r.close().await;
}

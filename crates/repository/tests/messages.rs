#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
mod common;
use common::*;
use sqlx::PgPool;
use starling_protocol::event::SyncFrom;
use starling_protocol::http::HistoryPage;
use starling_protocol::{Message, MessageId, Reaction, Role, RoomId};
use starling_repository::{Change, NewMessage, Page, SearchCursor};
use uuid::Uuid;

fn seqs(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|m| m.seq).collect()
}

fn shape(page: Option<HistoryPage>) -> (Vec<i64>, Option<i64>, Option<i64>) {
    let page = page.unwrap();
    (seqs(&page.messages), page.next_before, page.next_after)
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn history_pages_meet_without_gap_or_repeat(pool: PgPool) {
    let r = repository(pool);
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let room = group(&r, &[a]).await;
    let page = async |page, limit| shape(r.history(a, room, page, limit).await.unwrap());
    assert_eq!(page(Page::Newest, 3).await, (vec![], None, None));
    assert_eq!(page(Page::After(0), 3).await, (vec![], None, None));
    for n in 1..=7 {
        say(&r, room, a, &format!("{n}")).await;
    }
    assert_eq!(page(Page::Newest, 3).await, (vec![5, 6, 7], Some(5), None));
    assert_eq!(page(Page::Before(5), 3).await, (vec![2, 3, 4], Some(2), Some(4)));
    assert_eq!(page(Page::Before(2), 3).await, (vec![1], None, Some(1)));
    assert_eq!(page(Page::After(0), 3).await, (vec![1, 2, 3], None, Some(3)));
    assert_eq!(page(Page::After(4), 3).await, (vec![5, 6, 7], Some(5), None));
    assert_eq!(page(Page::Newest, 7).await, ((1..=7).collect(), None, None));
    assert_eq!(page(Page::After(7), 3).await, (vec![], Some(8), Some(7)));
    assert_eq!(page(Page::After(70), 3).await, (vec![], Some(8), Some(7)));
    assert_eq!(page(Page::Before(0), 3).await, (vec![], Some(1), Some(0)));
    assert!(r.history(b, room, Page::Newest, 3).await.unwrap().is_none());
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn messages_come_in_the_order_asked_and_only_from_own_rooms(pool: PgPool) {
    let r = repository(pool);
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let (shared, own) = (group(&r, &[a, b]).await, group(&r, &[a]).await);
    let x = say(&r, shared, a, "x").await;
    let y = say(&r, shared, b, "y").await;
    let z = say(&r, own, a, "z").await;
    let ids = [y.id, z.id, MessageId(Uuid::now_v7()), x.id];
    let got = r.messages_for(b, &ids).await.unwrap();
    assert_eq!(got.iter().map(|m| m.id).collect::<Vec<_>>(), [y.id, x.id]);
    assert_eq!(got.iter().map(|m| m.receipts.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(r.message_for(b, z.id).await.unwrap(), None);
    assert_eq!(r.message_for(a, z.id).await.unwrap(), Some(z));
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn sync_gives_what_was_missed_and_says_if_there_is_more(pool: PgPool) {
    let r = repository(pool);
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let (one, two, foreign) = (group(&r, &[a]).await, group(&r, &[a]).await, group(&r, &[b]).await);
    for n in 1..=5 {
        say(&r, one, a, &format!("{n}")).await;
    }
    say(&r, two, a, "x").await;
    let from = |room_id: RoomId, after_seq| SyncFrom { room_id, after_seq };
    let ask = [from(two, 1), from(foreign, 0), from(one, 2), from(one, 0), from(RoomId(999), 0)];
    let got = r.sync(a, &ask, 2).await.unwrap();
    let got: Vec<_> =
        got.iter().map(|s| (s.room_id, seqs(&s.messages), s.last_seq, s.more)).collect();
    assert_eq!(got, [(two, vec![], 1, false), (one, vec![3, 4], 5, true)]);
    let got = r.sync(a, &[from(one, 4), from(two, 50)], 2).await.unwrap();
    let got: Vec<_> = got.iter().map(|s| (seqs(&s.messages), s.last_seq, s.more)).collect();
    assert_eq!(got, [(vec![5], 5, false), (vec![], 1, false)]);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn only_its_sender_edits_a_message(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c) = (user(&r, "ann").await, user(&r, "bob").await, user(&r, "cat").await);
    let room = group(&r, &[a, b]).await;
    let m = say(&r, room, b, "old").await;
    let Change::Changed(now) = r.edit(b, m.id, "new", at(30)).await.unwrap() else { panic!("no") };
    assert_eq!((now.content.as_str(), now.edited_at), ("new", Some(at(30))));
    assert!(now.receipts.is_some());
    assert_eq!(r.edit(a, m.id, "x", at(31)).await.unwrap(), Change::Forbidden);
    assert_eq!(r.edit(c, m.id, "x", at(31)).await.unwrap(), Change::NotFound);
    assert_eq!(r.edit(b, MessageId(Uuid::now_v7()), "x", at(31)).await.unwrap(), Change::NotFound);
    r.delete(b, m.id, at(32)).await.unwrap();
    assert_eq!(r.edit(b, m.id, "x", at(33)).await.unwrap(), Change::Deleted);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_deleted_message_keeps_its_place_and_nothing_else(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c) = (user(&r, "ann").await, user(&r, "bob").await, user(&r, "cat").await);
    let room = group(&r, &[a, b, c]).await;
    let metadata = serde_json::json!({"k": 1}).as_object().unwrap().clone();
    let m = say_with(&r, NewMessage { metadata, ..text(room, b, "secret") }, ROWS).await;
    r.add_reaction(a, m.id, "👍", at(20)).await.unwrap();
    assert_eq!(r.delete(c, m.id, at(30)).await.unwrap(), Change::Forbidden);
    let mut lock = r.lock_room(room).await.unwrap().unwrap();
    lock.set_role(c, Role::Admin).await.unwrap();
    lock.commit().await.unwrap();
    let Change::Changed(now) = r.delete(c, m.id, at(30)).await.unwrap() else { panic!("no") };
    assert_eq!((now.content.as_str(), now.deleted_at, now.seq), ("", Some(at(30)), 1));
    assert!(now.metadata.is_empty() && now.reactions.is_empty() && now.receipts.is_none());
    let Change::Unchanged(again) = r.delete(b, m.id, at(40)).await.unwrap() else { panic!("no") };
    assert_eq!(again.deleted_at, Some(at(30)));
    assert_eq!(r.add_reaction(a, m.id, "👍", at(41)).await.unwrap(), Change::Deleted);
    assert!(matches!(r.remove_reaction(a, m.id, "👍").await.unwrap(), Change::Unchanged(_)));
    assert_eq!(r.search(a, "secret", None, None, 10).await.unwrap().messages, []);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn reactions_are_kept_once_and_in_order(pool: PgPool) {
    let r = repository(pool);
    let (a, b, c) = (user(&r, "ann").await, user(&r, "bob").await, user(&r, "cat").await);
    let room = group(&r, &[a, b]).await;
    let m = say(&r, room, a, "x").await;
    r.add_reaction(b, m.id, "🎉", at(20)).await.unwrap();
    r.add_reaction(b, m.id, "👍", at(21)).await.unwrap();
    assert!(matches!(r.add_reaction(b, m.id, "👍", at(22)).await.unwrap(), Change::Unchanged(_)));
    let Change::Changed(now) = r.add_reaction(a, m.id, "🎉", at(23)).await.unwrap() else {
        panic!("no")
    };
    let reaction = |emoji: &str, user_ids| Reaction { emoji: emoji.into(), user_ids };
    assert_eq!(now.reactions, [reaction("🎉", vec![b, a]), reaction("👍", vec![b])]);
    let Change::Changed(now) = r.remove_reaction(b, m.id, "👍").await.unwrap() else {
        panic!("no")
    };
    assert_eq!(now.reactions, [reaction("🎉", vec![b, a])]);
    assert!(matches!(r.remove_reaction(b, m.id, "👍").await.unwrap(), Change::Unchanged(_)));
    assert_eq!(r.add_reaction(c, m.id, "👍", at(24)).await.unwrap(), Change::NotFound);
    assert_eq!(r.remove_reaction(c, m.id, "🎉").await.unwrap(), Change::NotFound);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn search_needs_all_words_in_ones_own_rooms(pool: PgPool) {
    let r = repository(pool);
    let (a, b) = (user(&r, "ann").await, user(&r, "bob").await);
    let (one, two, foreign) =
        (group(&r, &[a, b]).await, group(&r, &[a]).await, group(&r, &[b]).await);
    for n in 0..5 {
        say_with(&r, NewMessage { created_at: at(20 + n), ..text(one, a, "Grüner Tee") }, ROWS)
            .await;
    }
    say_with(&r, NewMessage { created_at: at(40), ..text(two, a, "grüner kaffee") }, ROWS).await;
    say(&r, foreign, b, "grüner tee").await;
    let page = async |q: &str, room, before: Option<&str>| {
        let before = before.map(|text| SearchCursor::parse(text).unwrap());
        r.search(a, q, room, before, 2).await.unwrap()
    };
    let first = page("TEE GRÜNER", None, None).await;
    assert_eq!(seqs(&first.messages), [5, 4]);
    assert!(first.messages[0].receipts.is_some());
    let second = page("tee grüner", None, first.next_before.as_deref()).await;
    let third = page("tee grüner", None, second.next_before.as_deref()).await;
    assert_eq!((seqs(&second.messages), seqs(&third.messages)), (vec![3, 2], vec![1]));
    assert_eq!(third.next_before, None);
    assert_eq!(page("grüner", None, None).await.messages[0].room_id, two);
    assert_eq!(page("grüner", Some(one), None).await.messages[0].room_id, one);
    assert_eq!(page("grüner", Some(foreign), None).await.messages, []);
    assert_eq!(page("'!:*&|", None, None).await.messages, []);
    assert_eq!(SearchCursor::parse("what"), None);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn a_room_has_another_version_after_every_change_and_the_same_after_a_send(pool: PgPool) {
    let repository = repository(pool.clone());
    let (ann, bob) = (user(&repository, "ann").await, user(&repository, "bob").await);
    let room = group(&repository, &[ann, bob]).await;
    let other = group(&repository, &[ann]).await;
    let head = async |room| repository.room_head(ann, room).await.unwrap().unwrap();
    assert_eq!(head(room).await.newest, None);
    let first = say(&repository, room, ann, "one").await;
    let second = say(&repository, room, bob, "two").await;
    say(&repository, other, ann, "elsewhere").await;
    let before = head(room).await;
    assert_eq!((before.last_seq, before.newest), (2, Some((second.id, 2))));
    assert!(before.version.is_nil());
    assert_eq!(repository.room_head(bob, other).await.unwrap(), None);

    let mut seen = vec![before.version];
    let mut changed = async |what: &str| {
        let version = head(room).await.version;
        assert!(!seen.contains(&version), "{what}");
        seen.push(version);
    };
    repository.edit(ann, first.id, "1", at(20)).await.unwrap();
    changed("an edit").await;
    repository.add_reaction(bob, first.id, "+1", at(21)).await.unwrap();
    changed("a reaction").await;
    repository.remove_reaction(bob, first.id, "+1").await.unwrap();
    changed("a reaction less").await;
    repository.delete(ann, first.id, at(22)).await.unwrap();
    changed("a deletion").await;
    // Several in one transaction, and a roll-back.
    let mut tx = pool.begin().await.unwrap();
    for _ in 0..2 {
        sqlx::query("UPDATE messages SET content = content || '!' WHERE deleted_at IS NULL")
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    let during = head(room).await.version;
    tx.commit().await.unwrap();
    changed("somebody's SQL").await;
    assert_ne!(during, head(room).await.version);
    let settled = (head(room).await, head(other).await.version);
    assert!(!settled.1.is_nil(), "the other room's message was changed too");
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("DELETE FROM messages").execute(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(repository.add_reaction(bob, first.id, "x", at(23)).await.unwrap(), Change::Deleted);
    assert_eq!(head(room).await, settled.0);
    // Two who change different messages of the room don't wait for each other.
    let third = say(&repository, room, ann, "three").await;
    assert_eq!(head(room).await.version, settled.0.version);
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("UPDATE messages SET content = 'held' WHERE id = $1")
        .bind(second.id.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    repository.edit(ann, third.id, "meanwhile", at(30)).await.unwrap();
    tx.commit().await.unwrap();
    assert_ne!(head(room).await.version, settled.0.version);
}

#[sqlx::test(migrations = "../../db/migrations")]
async fn receipts_added_later_are_those_that_a_page_has(pool: PgPool) {
    let repository = repository(pool);
    let (ann, bob) = (user(&repository, "ann").await, user(&repository, "bob").await);
    let room = group(&repository, &[ann, bob]).await;
    say(&repository, room, ann, "with rows").await;
    say_with(&repository, text(room, ann, "by watermarks"), 1).await;
    say(&repository, room, bob, "another's").await;
    for user in [ann, bob] {
        let page = repository.history(user, room, Page::Newest, 50).await.unwrap().unwrap();
        let mut plain = page.messages.clone();
        for message in &mut plain {
            message.receipts = None;
        }
        repository.add_receipts(user, &mut plain).await.unwrap();
        assert_eq!(plain, page.messages);
    }
}

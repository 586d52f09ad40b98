//! What was delivered and read, of many sockets at once. A test runs on one thread,
//! so calls that are awaited together are in the queue before the first is taken
//! from it, and are written as one batch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::{Database, Heard, chat, group, say, user};
use starling_chat::{Chat, ConnectionId, Except, Target};
use starling_protocol::event::{
    MessageDelivered, MessageRead, MessageStatus, ReceiptStatus, ServerEvent,
};
use starling_protocol::{Code, Message, RoomId, UserId};
use starling_repository::Repository;
use uuid::Uuid;

/// Three people in one room, where ann and cat have said something.
struct World {
    database: Database,
    repository: Repository,
    chat: Chat,
    heard: Arc<Heard>,
    ann: UserId,
    bob: UserId,
    cat: UserId,
    room: RoomId,
    said: Vec<Message>,
}

impl World {
    async fn new() -> Self {
        let database = Database::create().await;
        let repository = database.repository(4);
        let heard = Arc::new(Heard::default());
        let chat = chat(repository.clone(), heard.clone());
        let ann = user(&repository, "ann").await;
        let bob = user(&repository, "bob").await;
        let cat = user(&repository, "cat").await;
        let room = group(&repository, &[ann, bob, cat]).await;
        let mut said = Vec::new();
        for sender in [ann, ann, cat, ann] {
            said.push(say(&chat, sender, room, "words").await);
        }
        heard.take();
        Self { database, repository, chat, heard, ann, bob, cat, room, said }
    }

    fn delivered(&self, which: &[usize]) -> MessageDelivered {
        let message_ids = which.iter().map(|n| self.said[*n].id).collect();
        MessageDelivered { room_id: self.room, message_ids }
    }

    fn read(&self, which: usize) -> MessageRead {
        MessageRead { room_id: self.room, message_id: self.said[which].id }
    }

    /// Who was told of which messages, by whom they were read or got.
    fn statuses(&self, events: Vec<Event>) -> Vec<(UserId, UserId, ReceiptStatus, Vec<usize>)> {
        let place = |id| self.said.iter().position(|message| message.id == id).unwrap();
        let statuses = events.into_iter().filter_map(|(target, _, event)| {
            let ServerEvent::MessageStatus(event) = event else { return None };
            let MessageStatus { message_ids, user_id, status, .. } = event;
            let Target::User(sender) = target else { panic!("{target:?}") };
            Some((sender, user_id, status, message_ids.into_iter().map(place).collect()))
        });
        statuses.collect()
    }
}

type Event = (Target, Except, ServerEvent);

fn connection() -> ConnectionId {
    ConnectionId(Uuid::new_v4())
}

#[tokio::test]
async fn a_batch_tells_each_sender_once_and_answers_everyone() {
    let w = World::new().await;
    let (first, second) = (connection(), connection());
    let (one, two) = (w.delivered(&[0, 1]), w.delivered(&[1, 2]));
    let own = w.delivered(&[0, 2, 3]);
    let nowhere = MessageDelivered { room_id: RoomId(999), ..one.clone() };
    let unknown = MessageRead { room_id: RoomId(999), ..w.read(0) };
    let answers = tokio::join!(
        w.chat.delivered(w.bob, &one),
        w.chat.delivered(w.bob, &two),
        w.chat.read(w.bob, second, w.read(3), vec![w.said[3].id]),
        w.chat.read(w.bob, first, w.read(0), Vec::new()),
        w.chat.delivered(w.cat, &own),
        w.chat.delivered(w.bob, &nowhere),
        w.chat.read(w.bob, first, unknown, Vec::new()),
    );
    answers.0.unwrap();
    answers.1.unwrap();
    assert_eq!((answers.2.unwrap(), answers.3.unwrap()), (4, 4));
    answers.4.unwrap();
    assert_eq!(answers.5.unwrap_err().code, Code::NotFound);
    assert_eq!(answers.6.unwrap_err().code, Code::NotFound);

    use ReceiptStatus::{Delivered, Read};
    let events = w.heard.take();
    let reads: Vec<_> = events
        .iter()
        .filter_map(|(target, except, event)| match event {
            ServerEvent::RoomRead(read) => Some((target.clone(), *except, read.last_read_seq)),
            _ => None,
        })
        .collect();
    assert_eq!(reads, [(Target::User(w.bob), Except::Connection(second), 4)]);
    assert_eq!(
        w.statuses(events),
        [
            (w.ann, w.bob, Delivered, vec![0, 1]),
            (w.cat, w.bob, Delivered, vec![2]),
            (w.ann, w.bob, Read, vec![0, 1, 3]),
            (w.cat, w.bob, Read, vec![2]),
            (w.ann, w.cat, Delivered, vec![0, 3]),
        ]
    );
    // Held by the delivery of the one that read it.
    let missing = w.repository.undelivered(w.bob, None, 10).await.unwrap();
    assert_eq!(missing.iter().map(|m| m.message_id).collect::<Vec<_>>(), [w.said[3].id]);
}

#[tokio::test]
async fn one_that_the_database_refuses_does_not_fail_the_others() {
    let w = World::new().await;
    w.database.sql(&format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE check_violation; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON message_receipts
         FOR EACH ROW WHEN (NEW.user_id = {}) EXECUTE FUNCTION refuse()",
        w.bob.0
    ));
    let all = w.delivered(&[0, 1, 2, 3]);
    let (by_cat, by_bob, by_ann) = tokio::join!(
        w.chat.delivered(w.cat, &all),
        w.chat.delivered(w.bob, &all),
        w.chat.read(w.ann, connection(), w.read(3), Vec::new()),
    );
    by_cat.unwrap();
    assert_eq!(by_bob.unwrap_err().code, Code::Unavailable);
    assert_eq!(by_ann.unwrap(), 4);
    use ReceiptStatus::{Delivered, Read};
    assert_eq!(
        w.statuses(w.heard.take()),
        [(w.ann, w.cat, Delivered, vec![0, 1, 3]), (w.cat, w.ann, Read, vec![2])]
    );
}

#[tokio::test]
async fn draining_answers_what_was_taken_and_takes_no_more() {
    let w = World::new().await;
    let all = w.delivered(&[0, 1, 2, 3]);
    let (one, two, ()) = tokio::join!(
        w.chat.delivered(w.bob, &all),
        w.chat.read(w.cat, connection(), w.read(3), Vec::new()),
        w.chat.drain(),
    );
    one.unwrap();
    assert_eq!(two.unwrap(), 4);
    assert_eq!(w.chat.delivered(w.bob, &all).await.unwrap_err().code, Code::Unavailable);
    let late = w.chat.read(w.bob, connection(), w.read(3), Vec::new()).await;
    assert_eq!(late.unwrap_err().code, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_tell_each_message_once() {
    let w = World::new().await;
    let other = chat(w.database.repository(4), w.heard.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let chat = if n % 2 == 0 { w.chat.clone() } else { other.clone() };
        let (user, delivered) = (w.bob, w.delivered(&[0, 1, 2, 3]));
        let read = w.read(n % 4);
        tasks.spawn(async move {
            chat.delivered(user, &delivered).await.unwrap();
            chat.read(user, connection(), read, Vec::new()).await.unwrap();
        });
    }
    tasks.join_all().await;
    let mut told: Vec<(ReceiptStatus, usize)> = w
        .statuses(w.heard.take())
        .into_iter()
        .flat_map(|(_, _, status, which)| which.into_iter().map(move |n| (status, n)))
        .collect();
    told.sort_by_key(|(status, n)| (*status == ReceiptStatus::Read, *n));
    use ReceiptStatus::{Delivered, Read};
    let once = [Delivered, Read].into_iter().flat_map(|s| (0..4).map(move |n| (s, n)));
    assert_eq!(told, once.collect::<Vec<_>>());
}

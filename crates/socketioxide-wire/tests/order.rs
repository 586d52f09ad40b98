//! Every message once, in the order in which the server sent it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Options, Polling, World, Ws, soon, until};
use rand::RngExt as _;
use serde_json::json;
use socketioxide_wire::{Frame, Settings};

const SOCKETS: usize = 200;
/// What a socket gets: its share of 100,000.
const EACH: usize = 500;

#[derive(Clone, Copy)]
enum Kind {
    WebSocket,
    Upgraded,
    Polling,
}

/// A client that asks now and then, and writes down all it gets.
async fn client(world: Arc<World>, name: String, kind: Kind) -> (String, Vec<String>) {
    let mut got = Vec::new();
    let asks = (0..20).map(|n| format!("42{n}[\"ask\",{n}]"));
    match kind {
        Kind::WebSocket => {
            let mut ws = Ws::connect(&world, &name).await;
            for ask in asks {
                ws.send(&ask).await;
            }
            ws.collect(&mut got, EACH).await;
        }
        Kind::Polling => {
            let mut polling = Polling::connect(&world, &name).await;
            polling.send(&asks.collect::<Vec<_>>().join("\u{1e}")).await;
            polling.collect(&mut got, EACH).await;
        }
        Kind::Upgraded => {
            let mut polling = Polling::connect(&world, &name).await;
            let (first, second): (Vec<_>, Vec<_>) = asks.partition(|ask| ask.len() % 2 == 0);
            polling.send(&first.join("\u{1e}")).await;
            let some = rand::rng().random_range(1..EACH / 2);
            polling.collect(&mut got, some).await;
            let mut ws = polling.upgrade(&world, &mut got).await;
            for ask in second {
                ws.send(&ask).await;
            }
            ws.collect(&mut got, EACH).await;
        }
    }
    (name, got)
}

async fn everybody_gets_everything_in_order(kernel_buffer: u32) {
    let settings = Settings { waiting_bytes: 16 << 20, ..Settings::default() };
    let world = World::start(Options { settings, kernel_buffer, ..Options::default() }).await;
    let clients: Vec<_> = (0..SOCKETS)
        .map(|n| {
            let kind = [Kind::WebSocket, Kind::Upgraded, Kind::Upgraded, Kind::Polling][n % 4];
            tokio::spawn(client(world.clone(), format!("c{n}"), kind))
        })
        .collect();
    let (mut handles, mut numbers) = (Vec::new(), HashMap::new());
    for n in 0..SOCKETS {
        let handle = world.socket(&format!("c{n}")).await;
        for room in ["all", "a", "b"] {
            if room == "all" || (n % 2 == 0) == (room == "a") {
                world.enter(&handle, room);
            }
        }
        numbers.insert(format!("c{n}"), handle.number());
        handles.push(handle);
    }
    // Three senders at once, with pauses, so that the upgrades fall in between:
    // 20 acks, 160 own, 200 for all and 120 of one's room are 500 for each.
    let sender = |send: Arc<dyn Fn(usize) + Send + Sync>, times: usize| {
        tokio::spawn(async move {
            for n in 0..times {
                send(n);
                if n % 5 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
    };
    let (all, rooms, own) = (world.clone(), world.clone(), world.clone());
    let senders = [
        sender(Arc::new(move |n| all.broadcast("all", &format!("all {n}"))), 200),
        sender(
            Arc::new(move |n| {
                rooms.broadcast("a", &format!("a {n}"));
                rooms.broadcast("b", &format!("b {n}"));
            }),
            120,
        ),
        sender(
            Arc::new(move |n| {
                for handle in &handles {
                    own.tell(handle, &format!("own {n} {}", "x".repeat(n)));
                }
            }),
            160,
        ),
    ];
    for sender in senders {
        soon("the senders", sender).await.unwrap();
    }
    let mut upgraded = 0;
    for client in clients {
        let (name, got) = soon("a client", client).await.unwrap();
        let sent = world.sent.lock()[&numbers[&name]].clone();
        assert_eq!(got.len(), EACH, "{name}");
        let wrong = sent.iter().zip(&got).position(|(sent, got)| sent != got);
        assert!(
            wrong.is_none(),
            "{name}: {:?} != {:?}",
            &sent[wrong.unwrap()..],
            &got[wrong.unwrap()..]
        );
        upgraded += 1;
    }
    assert_eq!(upgraded, SOCKETS);
    let stats = world.core.stats();
    assert_eq!(stats.upgrades, SOCKETS as u64 / 2, "{stats:?}");
    assert!(stats.direct_frames > 0 && stats.engine_frames > 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_everything_in_the_order_of_sending() {
    everybody_gets_everything_in_order(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn also_when_the_kernel_takes_little_at_once() {
    everybody_gets_everything_in_order(4096).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_frames_may_come_in_any_pieces() {
    let world = World::start(Options::default()).await;
    let mut ws = Ws::connect(&world, "pieces").await;
    let mut all = Vec::new();
    for n in 0..40 {
        all.extend(Ws::frame(1, format!("42{n}[\"ask\",{n}]").as_bytes()));
    }
    use tokio::io::AsyncWriteExt as _;
    // Each byte alone, then all in one write.
    for byte in &all {
        ws.stream.write_all(&[*byte]).await.unwrap();
        ws.stream.flush().await.unwrap();
    }
    ws.stream.write_all(&all).await.unwrap();
    for n in (0..40).chain(0..40) {
        assert_eq!(ws.text().await, format!("43{n}[{n}]"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_ten_thousand_arrives_whole() {
    let world = World::start(Options::default()).await;
    let mut ws = Ws::connect(&world, "healthy").await;
    let handle = world.socket("healthy").await;
    let sending = tokio::spawn(async move {
        for n in 0..10_000 {
            assert!(handle.emit("m", &format!("{n} {}", "x".repeat(50))));
        }
    });
    for n in 0..10_000 {
        assert!(ws.text().await.starts_with(&format!("42[\"m\",\"{n} x")));
    }
    sending.await.unwrap();
    assert_eq!(world.core.stats().ended_by_limit, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gathered_goes_out_in_one_write() {
    let world = World::start(Options::default()).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut ws = Ws::connect(&world, &format!("g{n}")).await;
        // The engine's ping would take its place among what is counted.
        soon("a ping", ws.pinged()).await;
        clients.push(ws);
        world.enter(&world.socket(&format!("g{n}")).await, "all");
    }
    world.broadcast("all", "all are written to directly from here on");
    for ws in &mut clients {
        ws.text().await;
    }
    // Counted when the flusher is done: until then it takes along what comes.
    until("the flusher", || world.core.stats().direct_frames == 20).await;
    let before = world.core.stats();
    {
        let _together = world.core.gather();
        for n in 0..50 {
            world.broadcast("all", &n.to_string());
        }
    }
    for ws in &mut clients {
        for n in 0..50 {
            assert_eq!(ws.text().await, format!("42[\"m\",\"{n}\"]"));
        }
    }
    let sent = || world.core.stats().direct_frames - before.direct_frames;
    until("the flusher", || sent() == 20 * 50).await;
    let stats = world.core.stats();
    assert_eq!(stats.writes - before.writes, 20, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_travel_with_their_event_by_both_ways() {
    let world = World::start(Options::default()).await;
    let file = json!({ "name": "a.bin" });
    let (mut ws, mut polling) =
        (Ws::connect(&world, "ws").await, Polling::connect(&world, "polling").await);
    for name in ["ws", "polling"] {
        let handle = world.socket(name).await;
        let frame = Frame::event("/", "file", (file.clone(), Bytes::from_static(b"\0\xffz")));
        assert!(handle.send(&frame.unwrap()));
        assert!(handle.emit("m", "after"));
    }
    let text = r#"451-["file",{"name":"a.bin"},{"_placeholder":true,"num":0}]"#;
    assert_eq!(ws.text().await, text);
    assert_eq!(ws.next().await.unwrap(), (2, b"\0\xffz".to_vec()));
    assert_eq!(ws.text().await, r#"42["m","after"]"#);
    let mut packets = Vec::new();
    while packets.len() < 3 {
        packets.extend(polling.poll().await.into_iter().filter(|packet| packet != "2"));
    }
    assert_eq!(packets, [text, &format!("b{}", common::base64(b"\0\xffz")), r#"42["m","after"]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_attachments_both_ways() {
    // The attachment of the event comes back as that of its answer.
    let on_event: common::OnEvent = Arc::new(|_, handle, mut event| {
        assert_eq!(event.name, "file");
        assert_eq!(event.args[0].get(), r#"{"_placeholder":true,"num":0}"#);
        handle.ack(event.ack.take().unwrap(), &event.attachments.remove(0));
    });
    let world = World::start(Options { on_event, ..Options::default() }).await;
    let mut ws = Ws::connect(&world, "ws").await;
    ws.send(r#"451-7["file",{"_placeholder":true,"num":0}]"#).await;
    use tokio::io::AsyncWriteExt as _;
    ws.stream.write_all(&Ws::frame(2, b"\0\x01\xff")).await.unwrap();
    assert_eq!(ws.text().await, r#"461-7[{"_placeholder":true,"num":0}]"#);
    assert_eq!(ws.next().await.unwrap(), (2, b"\0\x01\xff".to_vec()));
    let mut polling = Polling::connect(&world, "polling").await;
    let binary = common::base64(b"\x02\xfe");
    polling
        .send(&format!("451-8[\"file\",{{\"_placeholder\":true,\"num\":0}}]\u{1e}b{binary}"))
        .await;
    let mut got = Vec::new();
    while got.len() < 2 {
        got.extend(polling.poll().await.into_iter().filter(|packet| packet != "2"));
    }
    assert_eq!(got, [r#"461-8[{"_placeholder":true,"num":0}]"#, &format!("b{binary}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_hears_nothing_before_the_answer_to_its_connect() {
    let world = World::start(Options::default()).await;
    for round in 0..50 {
        let name = format!("n{round}");
        let mut ws = Ws::connect(&world, &name).await;
        let main = world.socket(&name).await;
        ws.send("40/chat,").await;
        let chat = world.socket_in(&name, "/chat").await;
        // As early as can be, and mixed with the other namespace.
        assert!(chat.emit("m", "1"));
        assert!(main.emit("m", "2"));
        assert!(chat.emit("m", "3"));
        let mut got = Vec::new();
        for _ in 0..4 {
            got.push(ws.text().await);
        }
        assert!(got[0].starts_with("40/chat,{"), "{got:?}");
        assert_eq!(got[1..], ["42/chat,[\"m\",\"1\"]", "42[\"m\",\"2\"]", "42/chat,[\"m\",\"3\"]"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_engine_can_do_keeps_its_place() {
    let world = World::start(Options::default()).await;
    let mut ws = Ws::connect(&world, "asked").await;
    let handle = world.socket("asked").await;
    for round in 0..100 {
        handle.emit("m", &format!("before {round}"));
        let answer =
            handle.by_engine(|socket| socket.emit_with_ack::<_, i64>("question", &round).unwrap());
        handle.emit("m", &format!("after {round}"));
        assert_eq!(ws.text().await, format!("42[\"m\",\"before {round}\"]"));
        let question = ws.text().await;
        let id = question.strip_prefix("42").unwrap().split('[').next().unwrap().to_owned();
        assert!(question.ends_with(&format!("[\"question\",{round}]")), "{question}");
        assert_eq!(ws.text().await, format!("42[\"m\",\"after {round}\"]"));
        ws.send(&format!("43{id}[{round}]")).await;
        assert_eq!(soon("the answer", answer).await.unwrap(), round);
    }
    // A disconnect comes after all that was sent, too.
    handle.emit("m", "last");
    handle.disconnect();
    assert_eq!(ws.text().await, "42[\"m\",\"last\"]");
    assert_eq!(ws.text().await, "41");
    until("the handler", || world.disconnects.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    // The session lives on: the same client may connect again.
    ws.send("40").await;
    assert!(ws.text().await.starts_with("40{"));
    world.socket("asked").await.emit("m", "again");
    assert_eq!(ws.text().await, "42[\"m\",\"again\"]");
}

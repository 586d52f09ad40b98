//! Bounds: slow and stuck readers, fast writers, and what is left of those who went.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Options, Polling, World, Ws, soon, until};
use socketioxide_wire::{Frame, Settings};
use tokio::io::AsyncWriteExt as _;

const HEALTHY: usize = 1000;

/// Starts clients that read all they get; each says how many messages it saw when
/// `count` have come.
async fn healthy(world: &Arc<World>, count: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let mut clients = Vec::new();
    for n in 0..HEALTHY {
        let mut ws = Ws::connect(world, &format!("h{n}")).await;
        world.enter(&world.socket(&format!("h{n}")).await, "all");
        clients.push(tokio::spawn(async move { ws.collect(&mut Vec::new(), count).await }));
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_stuck_is_ended_at_the_limit_and_harms_nobody() {
    let settings = Settings { waiting_bytes: 256 * 1024, ..Settings::default() };
    let world = World::start(Options { settings, ..Options::default() }).await;
    let rounds = 100;
    let clients = healthy(&world, rounds).await;
    let stuck: Vec<Ws> = {
        let mut stuck = Vec::new();
        for n in 0..5 {
            stuck.push(Ws::connect(&world, &format!("s{n}")).await);
            world.enter(&world.socket(&format!("s{n}")).await, "stuck");
        }
        stuck
    };
    // Much for those who don't read, a little for all others.
    let large = "x".repeat(64 * 1024);
    let flooding = tokio::spawn({
        let world = world.clone();
        async move {
            let frame = Frame::event("/", "m", large).unwrap();
            while world.disconnects.load(Ordering::SeqCst) < 5 {
                for member in world.rooms.lock().members(&"stuck".to_owned()) {
                    member.send(&frame);
                }
                let waiting = world.core.sessions().waiting_bytes;
                assert!(waiting < 5 * 400 * 1024 + HEALTHY * 4096, "{waiting} bytes wait");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for n in 0..rounds {
        world.broadcast("all", &format!("{n}"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for client in clients {
        soon("a healthy client", client).await.unwrap();
    }
    soon("the handlers of the stuck", flooding).await.unwrap();
    assert_eq!(world.core.stats().ended_by_limit, 5);
    drop(stuck);
    until("all to be gone", || world.core.sessions().sessions == 0).await;
    until("the rooms to be empty", || world.rooms.lock().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_ended_after_the_write_timeout() {
    let settings = Settings { write_timeout: Duration::from_secs(2), ..Settings::default() };
    let world = World::start(Options { settings, kernel_buffer: 4096, ..Options::default() }).await;
    let stuck = Ws::connect(&world, "stuck").await;
    let handle = world.socket("stuck").await;
    // Far from the limit, but more than the kernel takes.
    for _ in 0..64 {
        assert!(handle.emit("m", &"x".repeat(2048)));
    }
    until("the disconnect handler", || world.disconnects.load(Ordering::SeqCst) == 1).await;
    let stats = world.core.stats();
    assert_eq!((stats.ended_by_limit, stats.ended_by_timeout), (0, 1));
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_slow_gets_all_in_order() {
    let settings = Settings { write_timeout: Duration::from_secs(3), ..Settings::default() };
    let world = World::start(Options { settings, kernel_buffer: 4096, ..Options::default() }).await;
    let mut slow = Ws::connect(&world, "slow").await;
    let handle = world.socket("slow").await;
    let count = 96;
    for n in 0..count {
        assert!(handle.emit("m", &format!("{n} {}", "x".repeat(500))));
    }
    // 4 KiB a second: all of it takes some four times the write timeout.
    slow.piece = 512;
    for n in 0..count {
        let Some((_, text)) = soon("a message", slow.next()).await else {
            panic!("{n}: {:?}", world.core.stats());
        };
        assert!(text.starts_with(format!("42[\"m\",\"{n} ").as_bytes()));
        tokio::time::sleep(Duration::from_millis(125)).await;
    }
    assert_eq!(world.disconnects.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_droppable_is_dropped_at_half_and_nothing_else() {
    let settings = Settings { waiting_bytes: 64 * 1024, ..Settings::default() };
    let world = World::start(Options { settings, kernel_buffer: 4096, ..Options::default() }).await;
    let mut ws = Ws::connect(&world, "ws").await;
    let mut polling = Polling::connect(&world, "polling").await;
    let typing = Frame::event("/", "m", "typing".to_owned()).unwrap().droppable();
    for name in ["ws", "polling"] {
        let handle = world.socket(name).await;
        assert!(handle.send(&typing));
        let mut sent = 0;
        while handle.send(&typing) {
            assert!(handle.emit("m", &"x".repeat(1000)));
            sent += 1;
            assert!(sent < 1000, "never dropped");
        }
        assert!(handle.emit("m", "kept"), "there is room for what matters");
    }
    assert_eq!(world.core.stats().dropped, 2);
    let mut got = Vec::new();
    while got.last().map(String::as_str) != Some("m kept") {
        let next = got.len() + 1;
        ws.collect(&mut got, next).await;
    }
    got.clear();
    while got.last().map(String::as_str) != Some("m kept") {
        let next = got.len() + 1;
        polling.collect(&mut got, next).await;
    }
    // With the way free again nothing is dropped.
    assert!(world.socket("ws").await.send(&typing));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_client_that_does_not_poll_is_ended_at_the_limit() {
    let settings = Settings { waiting_bytes: 64 * 1024, ..Settings::default() };
    let world = World::start(Options { settings, ..Options::default() }).await;
    let mut polling = Polling::connect(&world, "away").await;
    let handle = world.socket("away").await;
    let mut sent = 0;
    while handle.emit("m", &"x".repeat(1000)) {
        sent += 1;
        assert!(sent < 100, "never ended");
    }
    until("the disconnect handler", || world.disconnects.load(Ordering::SeqCst) == 1).await;
    assert_eq!(polling.try_poll().await.0, 400, "it learns that the session is gone");
    assert_eq!(world.core.stats().ended_by_limit, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_transport_runs_the_disconnect_handler_by_both_ways() {
    let world = World::start(Options::default()).await;
    let mut ws = Ws::connect(&world, "ws").await;
    let mut polling = Polling::connect(&world, "polling").await;
    world.socket("ws").await.end();
    assert!(soon("the end", ws.next()).await.is_none());
    let handle = world.socket("polling").await;
    // One poll is under way, as it is most of the time.
    let polled = tokio::spawn(async move {
        loop {
            let (status, packets) = polling.try_poll().await;
            if status != 200 {
                return (polling, status, packets);
            }
        }
    });
    tokio::task::yield_now().await;
    handle.end();
    let (mut polling, status, packets) = soon("a refusal", polled).await.unwrap();
    assert_eq!(status, 400, "{packets:?}");
    assert_eq!(polling.try_send("42[\"x\"]").await, 400);
    until("the handlers", || world.disconnects.load(Ordering::SeqCst) == 2).await;
    until("all to be gone", || world.core.sessions().sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_at_once_is_noticed_whenever_that_is() {
    let world = World::start(Options::default()).await;
    let count = 300;
    for n in 0..count {
        let mut ws = Ws::open(&world, &format!("&name=l{n}")).await;
        assert!(ws.text().await.starts_with("0{"));
        ws.send("40").await;
        match n % 3 {
            // Before the answer, with the answer, and by a word of its own.
            0 => {}
            1 => assert!(ws.text().await.starts_with("40{")),
            _ => ws.send("41").await,
        }
    }
    // Those whose CONNECT was not answered any more were never connected.
    until("the handlers", || {
        let connects = world.connects.load(Ordering::SeqCst);
        connects >= count / 3 && world.disconnects.load(Ordering::SeqCst) == connects
    })
    .await;
    until("all to be gone", || world.core.sessions().sessions == 0).await;
    assert!(world.rooms.lock().is_empty());
    assert_eq!(world.sockets.lock().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_fails_ends_the_session() {
    let world = World::start(Options::default()).await;
    let polling = Polling::connect(&world, "half").await;
    let mut ws = Ws::open(&world, &format!("&sid={}", polling.sid)).await;
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    drop(ws);
    until("the disconnect handler", || world.disconnects.load(Ordering::SeqCst) == 1).await;
    until("all to be gone", || world.core.sessions().sessions == 0).await;
}

/// A server whose handlers stand still until told to go.
fn standing() -> (Options, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let go = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(AtomicUsize::new(0));
    let (gate, counter) = (go.clone(), seen.clone());
    let options = Options {
        on_event: Arc::new(move |_, _, event| {
            while !gate.load(Ordering::SeqCst) {
                tokio::task::block_in_place(|| std::thread::park_timeout(Duration::from_millis(1)));
            }
            let n: usize = event.args[0].get().parse().unwrap();
            assert_eq!(n, counter.fetch_add(1, Ordering::SeqCst), "out of order");
        }),
        ..Options::default()
    };
    (options, go, seen)
}

/// A client that sends 6 MB, which fit nowhere: it stands until the handlers go.
async fn floods(mut ws: Ws, from: usize, go: &AtomicBool, seen: &AtomicUsize) {
    let count = 50_000;
    let sending = tokio::spawn(async move {
        for n in from..count {
            let event = format!("42[\"e\",{n},\"{}\"]", "x".repeat(100));
            ws.stream.write_all(&Ws::frame(1, event.as_bytes())).await.unwrap();
        }
        ws
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished(), "the server reads on without end");
    go.store(true, Ordering::SeqCst);
    let _ws = soon("the client", sending).await.unwrap();
    until("all events", || seen.load(Ordering::SeqCst) == count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_faster_than_its_handler_has_to_wait_and_loses_nothing() {
    let (options, go, seen) = standing();
    let world = World::start(Options { kernel_buffer: 4096, ..options }).await;
    let ws = Ws::connect(&world, "fast").await;
    floods(ws, 0, &go, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_client_has_to_wait_as_well() {
    let (options, go, seen) = standing();
    let world = World::start(options).await;
    let mut polling = Polling::connect(&world, "fast").await;
    let sending = tokio::spawn(async move {
        for body in 0..20 {
            let events: Vec<String> =
                (body * 300..(body + 1) * 300).map(|n| format!("42[\"e\",{n}]")).collect();
            polling.send(&events.join("\u{1e}")).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!sending.is_finished(), "bodies are taken without end");
    go.store(true, Ordering::SeqCst);
    soon("the client", sending).await.unwrap();
    until("all events", || seen.load(Ordering::SeqCst) == 6000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_upgrades_while_it_has_to_wait_goes_on_waiting() {
    let (options, go, seen) = standing();
    let world = World::start(Options { kernel_buffer: 4096, ..options }).await;
    let mut polling = Polling::connect(&world, "fast").await;
    let events: Vec<String> = (0..300).map(|n| format!("42[\"e\",{n}]")).collect();
    polling.send(&events.join("\u{1e}")).await;
    let ws = polling.upgrade(&world, &mut Vec::new()).await;
    floods(ws, 300, &go, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_left_takes_nothing_from_the_other() {
    let world = World::start(Options::default()).await;
    let mut polling = Polling::connect(&world, "two").await;
    polling.send("40/chat,").await;
    let (main, chat) = (world.socket("two").await, world.socket_in("two", "/chat").await);
    polling.send("41/chat,").await;
    until("the handler", || world.disconnects.load(Ordering::SeqCst) == 1).await;
    assert!(!chat.emit("m", "to nobody"));
    assert!(main.emit("m", "still here"));
    let mut got = Vec::new();
    polling.collect(&mut got, 1).await;
    assert_eq!(got, ["m still here"]);
    let mut ws = polling.upgrade(&world, &mut got).await;
    assert!(main.emit("m", "and by the other way"));
    assert_eq!(ws.text().await, "42[\"m\",\"and by the other way\"]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_payload_limit_is_not_buffered() {
    let world = World::start(Options { max_payload: 10_000, ..Options::default() }).await;
    let mut ws = Ws::connect(&world, "large").await;
    // Only the header: whoever waits for the rest has believed it.
    let mut header = Ws::frame(1, &vec![b'x'; 20_000]);
    header.truncate(8);
    ws.stream.write_all(&header).await.unwrap();
    assert!(soon("the end", ws.next()).await.is_none());
    until("the disconnect handler", || world.disconnects.load(Ordering::SeqCst) == 1).await;
}

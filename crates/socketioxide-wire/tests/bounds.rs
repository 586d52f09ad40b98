//! Bounds: slow and stuck readers, fast writers, and what is left of those who went.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Options, Polling, World, Ws, soon, until};
use socketioxide::socket::DisconnectReason;
use socketioxide_wire::{Frame, Settings};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

const HEALTHY: usize = 1000;

/// The last message for everybody.
const LAST: &str = "m last";
/// The last message for the slow one.
const VERY_LAST: &str = "m very last";

/// Reads 1 KiB a second, pings among it, and counts that, until it is told to catch
/// up; then to the last message.
async fn slowly(
    mut ws: Ws,
    read: Arc<AtomicUsize>,
    catch_up: Arc<AtomicBool>,
) -> (Ws, Vec<String>) {
    let mut turn = tokio::time::interval(Duration::from_millis(125));
    let mut got = Vec::new();
    ws.piece = 128;
    while !catch_up.load(Ordering::SeqCst) {
        turn.tick().await;
        read.fetch_add(ws.take_in(&mut got).await, Ordering::SeqCst);
    }
    ws.read_to(&mut got, VERY_LAST).await;
    (ws, got)
}

/// Bytes of a message with so many letters.
fn frame_len(letters: usize) -> usize {
    Frame::event("/", "m", "x".repeat(letters)).unwrap().bytes().len()
}

/// A client whose connection is cut by and by: nothing comes through any more, in
/// neither direction, though both ends stay open.
async fn through_a_proxy(world: &World, name: &str, cut: &Arc<Notify>) -> Ws {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let (server, cut) = (world.addr, cut.clone());
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            () = cut.notified() => std::future::pending().await,
        }
    });
    Ws::connect_to(proxy, 0, name).await
}

/// All kinds of bad readers at once, beside the same thousand good ones.
#[tokio::test(flavor = "multi_thread")]
async fn stuck_slow_and_dead_readers_end_as_they_should_and_harm_no_healthy_one() {
    const EACH: usize = 5;
    const BAD: usize = 4 * EACH;
    const LIMIT: usize = 128 * 1024;
    // 6 s of a slow reader; the kernel holds half of it.
    const BEHIND: usize = 6 * 1024;
    let settings = Settings {
        waiting_bytes: LIMIT,
        // So that it finds those who are stuck before the heartbeat does.
        write_timeout: Duration::from_secs(4),
        ..Settings::default()
    };
    let world = World::start(Options {
        settings,
        kernel_buffer: 2048,
        // What waits for the slow one, and so its next ping, is read in less time.
        ping: (Duration::from_secs(1), Duration::from_secs(10)),
        ..Options::default()
    })
    .await;

    let mut healthy = Vec::new();
    for n in 0..HEALTHY {
        let name = format!("healthy{n}");
        let mut ws = Ws::connect_to(world.addr, 0, &name).await;
        let handle = world.socket(&name).await;
        world.enter(&handle, "all");
        let (number, name) = (handle.number(), name.clone());
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            ws.read_to(&mut got, LAST).await;
            // Lives on, and answers pings, until the server goes.
            (got, tokio::spawn(async move { while ws.next().await.is_some() {} }))
        });
        healthy.push((name, number, reading));
    }
    // Stuck in two ways: more than the limit comes for the first, less for the others.
    let mut here = Vec::new();
    for room in ["flooded", "silted"] {
        for n in 0..EACH {
            let name = format!("{room}{n}");
            here.push(Ws::connect(&world, &name).await);
            world.enter(&world.socket(&name).await, room);
        }
    }
    // Dead in two ways: the process stands still, and the way is cut.
    let cut = Arc::new(Notify::new());
    for n in 0..EACH {
        here.push(Ws::connect_to(world.addr, 0, &format!("still{n}")).await);
        here.push(through_a_proxy(&world, &format!("cut{n}"), &cut).await);
    }
    let slow = Ws::connect(&world, "slow").await;
    let slow_handle = world.socket("slow").await;
    let everybody: Vec<_> = world.sockets.lock().values().cloned().collect();
    assert_eq!(everybody.len(), HEALTHY + BAD + 1);
    for handle in &everybody {
        world.enter(handle, "all");
    }
    drop(everybody);
    cut.notify_waiters();

    let silt = Frame::event("/", "m", "x".repeat(32 * 1024)).unwrap();
    for member in world.rooms.lock().members(&"silted".to_owned()) {
        assert!(member.send(&silt));
    }
    let catch_up = Arc::new(AtomicBool::new(false));
    let (read, told) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let reading = tokio::spawn(slowly(slow, read.clone(), catch_up.clone()));
    // The slow one is always behind by as much, and so are its pings.
    let keep_behind = || {
        while told.load(Ordering::SeqCst) < read.load(Ordering::SeqCst) + BEHIND {
            let told = told.fetch_add(frame_len(207), Ordering::SeqCst);
            world.tell(&slow_handle, &format!("{told:06} {}", "x".repeat(200)));
        }
    };
    let flood = Frame::event("/", "m", "x".repeat(8 * 1024)).unwrap();
    let mut n = 0;
    soon("the end of all that are stuck or dead", async {
        while world.disconnects.load(Ordering::SeqCst) < BAD {
            world.broadcast("all", &format!("{n:06}"));
            told.fetch_add(frame_len(6), Ordering::SeqCst);
            keep_behind();
            for member in world.rooms.lock().members(&"flooded".to_owned()) {
                member.send(&flood);
            }
            // The limit for each of the bad; a few messages for the healthy.
            let now = world.core.sessions();
            let bad = now.sessions - HEALTHY;
            let most = bad * LIMIT + HEALTHY * 4096;
            assert!(now.waiting_bytes <= most, "{now:?}");
            n += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let stats = world.core.stats();
    assert_eq!((stats.ended_by_limit, stats.ended_by_timeout), (EACH as u64, EACH as u64));

    world.broadcast("all", LAST.strip_prefix("m ").unwrap());
    let mut still_here = Vec::new();
    for (name, number, reading) in healthy {
        keep_behind();
        let (got, here) = soon("a healthy client", reading).await.unwrap();
        assert!(got == world.sent.lock()[&number], "{name} missed something");
        still_here.push(here);
    }
    // Now only the slow one can be behind, and it is, after so much longer than the
    // write timeout.
    keep_behind();
    let waiting = world.core.sessions().waiting_bytes;
    assert!(waiting > 0 && waiting < LIMIT, "{waiting}");
    catch_up.store(true, Ordering::SeqCst);
    world.tell(&slow_handle, VERY_LAST.strip_prefix("m ").unwrap());
    let (_slow, got) = soon("the slow client", reading).await.unwrap();
    assert!(got == world.sent.lock()[&slow_handle.number()], "the slow one missed something");

    // The handlers of these ran, once, and nobody else's.
    let mut ends = world.ends.lock().clone();
    ends.sort_by(|(one, _), (other, _)| one.cmp(other));
    let names: Vec<&str> = ends.iter().map(|(name, _)| name.as_str()).collect();
    let mut expected: Vec<String> = ["cut", "flooded", "silted", "still"]
        .iter()
        .flat_map(|kind| (0..EACH).map(move |n| format!("{kind}{n}")))
        .collect();
    expected.sort();
    assert_eq!(names, expected);
    for (name, reason) in &ends {
        let dead = name.starts_with("cut") || name.starts_with("still");
        assert_eq!(dead, *reason == DisconnectReason::HeartbeatTimeout, "{name}: {reason:?}");
    }
    assert_eq!(world.core.sessions().sessions, HEALTHY + 1);
    drop(here);
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

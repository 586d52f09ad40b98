//! What is left of those who went: in a process of its own, whose files and memory
//! no other test touches.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Options, Polling, World, Ws, until};
use socketioxide_wire::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// So many come and go abruptly, during broadcasts.
async fn come_and_go(world: &Arc<World>, count: usize) {
    let before = world.disconnects.load(Ordering::SeqCst);
    let broadcasting = tokio::spawn({
        let world = world.clone();
        async move {
            let frame = Frame::event("/", "m", "x".repeat(500)).unwrap();
            loop {
                for member in world.rooms.lock().members(&"all".to_owned()) {
                    member.send(&frame);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let waves = 50;
    for wave in 0..waves {
        let mut here = Vec::new();
        for n in 0..count / waves {
            let name = format!("w{wave}n{n}");
            if n % 10 == 0 {
                here.push((None, Some(Polling::connect(world, &name).await)));
            } else {
                here.push((Some(Ws::connect(world, &name).await), None));
            }
            let key = (name.clone(), "/".to_owned());
            if let Some(handle) = world.sockets.lock().get(&key).cloned() {
                world.enter(&handle, "all");
            }
        }
        for (n, (ws, polling)) in here.into_iter().enumerate() {
            if let Some(mut ws) = ws {
                match n % 3 {
                    // Reset, with unread data; closed after some; in the middle of a frame.
                    0 => {
                        socket2::SockRef::from(&ws.stream).set_linger(Some(Duration::ZERO)).unwrap()
                    }
                    1 => {
                        let mut piece = [0; 64];
                        let some = ws.stream.read(&mut piece);
                        tokio::time::timeout(Duration::from_millis(20), some).await.ok();
                    }
                    _ => {
                        ws.stream.write_all(&Ws::frame(1, b"42[\"e\",0]")[..5]).await.unwrap_or(())
                    }
                }
            }
            if let Some(mut polling) = polling {
                // Too much may wait for it already, which has ended it.
                assert!(matches!(polling.try_send("1").await, 200 | 400));
            }
        }
    }
    until("all to be gone", || world.disconnects.load(Ordering::SeqCst) == before + count).await;
    until("all sessions to be gone", || world.core.sessions().sessions == 0).await;
    broadcasting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_thousand_that_came_and_went_nothing_is_left() {
    let world = World::start(Options::default()).await;
    let files = open_files();
    // The first round fills what allocators and tables keep.
    come_and_go(&world, 2500).await;
    let resident = resident_kib();
    come_and_go(&world, 2500).await;
    until("files to be closed", || open_files() <= files).await;
    assert!(world.rooms.lock().is_empty() && world.sockets.lock().is_empty());
    assert_eq!(world.core.sessions().waiting_bytes, 0);
    // A leak of the 16 KiB of each would be 40 MB.
    let grown = resident_kib().saturating_sub(resident);
    assert!(grown < 10 * 1024, "{grown} KiB more than after the first round");
}

//! `messages:offline`: batches, paced by the client's acknowledgements.

use std::sync::Arc;
use std::time::Duration;

use starling_chat::offline::OfflineDelivery;
use starling_protocol::event::server;
use starling_protocol::{MessageId, RoomId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Gateway, turn};
use crate::transport::hub::Link;

/// Between two batches, at least.
const PACE: Duration = Duration::from_millis(100);
/// A client that never acknowledges gets the next batch after this.
const PATIENCE: Duration = Duration::from_secs(2);
/// An acknowledgement counts so long, though the next batch went out.
const LATE: Duration = Duration::from_secs(60);

/// A delivery that runs beside the connection's events.
pub(crate) struct Delivery {
    offline: OfflineDelivery,
    /// The last batch was acknowledged, in one way or the other.
    acknowledged: Notify,
}

impl Delivery {
    /// The client said by `message:delivered` that these arrived.
    pub(crate) fn arrived(&self, room: RoomId, ids: &[MessageId]) {
        if self.offline.acknowledge(room, ids) {
            self.acknowledged.notify_one();
        }
    }

    /// What is still to be sent of this room.
    pub(crate) fn held(&self, room: RoomId) -> Vec<MessageId> {
        self.offline.held(room)
    }
}

/// Starts the delivery; it ends by itself, with the socket at the latest.
pub(crate) fn start(gateway: Gateway, link: Arc<Link>, offline: OfflineDelivery) -> Arc<Delivery> {
    let delivery = Arc::new(Delivery { offline, acknowledged: Notify::new() });
    tokio::spawn(run(gateway, link, delivery.clone()));
    delivery
}

async fn run(gateway: Gateway, link: Arc<Link>, delivery: Arc<Delivery>) {
    let chat = &gateway.chat;
    while link.connected() {
        let next = async {
            let _turn = turn(&gateway.turns.catching_up).await?;
            chat.next_offline_batch(&delivery.offline).await
        };
        let batch = match next.await {
            Ok(Some(batch)) => Arc::new(batch),
            Ok(None) => return,
            // Nothing is lost: the client gets the rest with its next connection.
            Err(_) => return link.end(),
        };
        metrics::counter!("starling_offline_batches_total").increment(1);
        let sent = Instant::now();
        let (chat2, link2, delivery2, batch2) =
            (chat.clone(), link.clone(), delivery.clone(), batch.clone());
        tokio::spawn(async move {
            if link2.emit_with_ack(server::MESSAGES_OFFLINE, &*batch2, LATE).await {
                // A failure leaves the batch undelivered: it comes again.
                chat2.offline_batch_delivered(&delivery2.offline, &batch2).await.ok();
                delivery2.acknowledged.notify_one();
            }
        });
        timeout_at(sent + PATIENCE, delivery.acknowledged.notified()).await.ok();
        let next = if sent.elapsed() >= PATIENCE { sent } else { Instant::now() };
        sleep_until(next + PACE).await;
    }
}

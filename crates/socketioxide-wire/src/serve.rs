//! The accept loop that most servers need.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use socketioxide::adapter::Adapter;
use tokio::net::TcpListener;

use crate::entry::Entry;
use crate::wire::Conn;

/// After a connection could not be accepted: out of file descriptors, most likely,
/// and others must close first.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections and sends all their requests to the engine, until `stop` is
/// ready. Connections that are open by then live on.
///
/// For servers that have checks of their own, or answer other requests as well, this
/// is the pattern: [`Conn::new`], hyper's HTTP/1 with upgrades, [`Entry::call`].
pub async fn serve<A: Adapter>(
    listener: TcpListener,
    entry: Entry<A>,
    stop: impl Future<Output = ()>,
) {
    let entry = Arc::new(entry);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let io = TokioIo::new(Conn::new(stream, entry.core()));
        let entry = entry.clone();
        let service = hyper::service::service_fn(move |request| {
            let entry = entry.clone();
            async move { Ok::<_, Infallible>(entry.call(request).await) }
        });
        // With a timer hyper ends who doesn't send its header within 30 s.
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(io, service)
            .with_upgrades();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

//! One stream of the tunnel: HTTP/1.1, one request after another, and what a switched connection carries after that.
//!
//! Spawned by `tunnel::session` for each stream that the server opens.

use std::{convert::Infallible, sync::Arc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_mux::{Paced, Stream};
use moorline_wire::limits;
use tokio_util::sync::CancellationToken;

use super::{IDLE, Line, Service};

/// Serves a stream until it ends. After `draining` it ends with the request that runs, or at once if none does.
pub(crate) async fn stream(stream: Stream, service: Arc<Service>, draining: CancellationToken) {
    let line = Line::default();
    // An upload that waits for a kube-apiserver to read it neither reads nor writes here.
    let mut given_up = stream.watch();
    let answering = service_fn(|request| {
        let answer = service.answer(request, &line);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        // Half-closed streams are not asked to be: a server that ends its side in the middle of a request has gone,
        // and this is how hyper tells us, also while a watch is silent.
        .half_close(false)
        // How much is held for bodies is bounded by `pace`.
        .max_header_size(limits::REQUEST_HEAD)
        .max_buf_size(limits::REQUEST_HEAD)
        // Streams of the multiplexer copy what they are given, so gathering is done for them anyway.
        .writev(false)
        // The kube-apiserver's own date passes through; ours would be a guess.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(Paced::new(stream, Arc::clone(&line.pace))), answering)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    let ended = loop {
        let event = tokio::select! {
            ended = connection.as_mut() => Event::Ended(ended),
            () = draining.cancelled(), if !leaving => Event::Draining,
            () = &mut given_up => Event::GivenUp,
        };
        match event {
            Event::Ended(ended) => break ended,
            Event::Draining => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            Event::GivenUp => return,
        }
    };
    match ended {
        Ok(()) => {
            if let Some(splice) = line.take() {
                splice.run().await;
            }
        }
        // Hang-ups are everyday life.
        Err(error) => tracing::debug!(%error, "a stream ended early"),
    }
}

enum Event {
    Ended(hyper::Result<()>),
    Draining,
    GivenUp,
}

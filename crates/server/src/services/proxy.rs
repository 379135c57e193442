//! HTTP to a service: each request of a program goes on as one of ours, with the name of its cluster written on it.
//!
//! Called by the entrances with a stream of which the other end speaks HTTP. A request is looked at anew: what the table
//! said when the connection began may not hold any more. Bodies stream both ways; the program's pace is the service's.

mod body;
mod clean;
mod upstream;

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{Either, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_process::{Phase, Tasks};
use moorline_wire::services::ServiceName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    origin::Origin,
    refused::Refused,
    table::Mode,
    visit::{self, Visit},
};
use crate::{enrolment::requests::refusal, front::body::Progress};
use body::Passing;
use upstream::{Lease, Upstream};

/// For the head of a request, and between the requests of a connection.
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// What is read at once and what is held for a side that does not read, in bytes; a head has to fit in.
const BUFFER: usize = 32 * 1024;

/// Headers of a request.
const MAX_HEADERS: usize = 128;

/// Requests of one HTTP/2 connection that run at once.
const H2_STREAMS: u32 = 32;

/// Bytes that one HTTP/2 request, and one connection, may have on their way here.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 256 * 1024;

/// How often a program that speaks HTTP/2 is asked for a sign of life, and how long it may take.
const H2_PING: Duration = Duration::from_secs(30);
const H2_PING_ANSWER: Duration = Duration::from_secs(20);

/// What a program gets: the service's answer, or one of ours.
type Answer = Response<Either<Passing, Full<Bytes>>>;

/// Serves HTTP to a program until it, the stream or the process ends, or the right to the service.
pub(super) async fn serve<IO>(origin: &Arc<Origin>, name: &ServiceName, io: IO, h2: bool)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let interval = origin.state().gateway.recheck_interval;
    let withdrawn = async {
        Arc::clone(origin).withdrawn(name.clone(), interval).await;
        // Answers that are read end by themselves meanwhile; those that nobody reads do not.
        tokio::time::sleep(interval).await;
    };
    tokio::select! {
        () = converse(origin, name, io, h2) => {}
        () = withdrawn => {}
    }
}

async fn converse<IO>(origin: &Arc<Origin>, name: &ServiceName, io: IO, h2: bool)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tasks = origin.state().tasks.clone();
    let program = Arc::new(Program { origin: Arc::clone(origin), name: name.clone(), upstream: Arc::default() });
    let service = service_fn(move |request| {
        let program = Arc::clone(&program);
        async move { Ok::<_, Infallible>(program.answer(request).await) }
    });
    if h2 {
        let connection = http2::Builder::new(RequestTasks(tasks))
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(u32::try_from(BUFFER).unwrap_or(u32::MAX))
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(H2_PING_ANSWER)
            .serve_connection(TokioIo::new(io), service);
        drive(origin, connection, |connection| connection.graceful_shutdown()).await;
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_headers(MAX_HEADERS)
            .max_buf_size(BUFFER)
            // A program that ends its side in the middle of a request has gone, and this is how hyper tells us.
            .half_close(false)
            .serve_connection(TokioIo::new(io), service);
        drive(origin, connection, |connection| connection.graceful_shutdown()).await;
    }
}

/// Runs a connection to its end. When the process is to end, what runs may finish, and an idle one ends at once.
async fn drive<C>(origin: &Origin, connection: C, leave: impl Fn(Pin<&mut C>))
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let phases = &origin.state().phases;
    let _work = phases.work();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = phases.reached(Phase::Draining) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            leave(connection.as_mut());
            connection.await
        }
    };
    if let Err(error) = ended {
        let cluster = origin.cluster().name();
        tracing::debug!(%cluster, session = %origin.session(), %error, "a connection to a service ended early");
    }
}

/// One connection of a program.
struct Program {
    origin: Arc<Origin>,
    name: ServiceName,
    upstream: Arc<Upstream>,
}

impl Program {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        // Before anything is written down of it.
        if let Err(refused) = self.origin.pace() {
            visit::count(&self.origin, &refused);
            return refusal(&refused.status()).map(Either::Right);
        }
        let mut visit = Visit::request(&self.origin, &self.name, &request);
        match self.forward(request, &mut visit).await {
            Ok((response, lease)) => self.deliver(response, lease, visit),
            Err(refused) => {
                visit.refused(&refused);
                refusal(&refused.status()).map(Either::Right)
            }
        }
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        visit: &mut Visit,
    ) -> Result<(Response<Incoming>, Lease), Refused> {
        let offered = self.origin.by_name(&self.name)?;
        if matches!(offered.service.mode, Mode::PassThrough) {
            return Err(Refused::Unknown(self.name.to_string()));
        }
        may_pass(&request)?;
        visit.receipt().await?;
        let progress = Arc::new(Progress::default());
        visit.uploads(&progress);
        let request = clean::request(request, self.origin.cluster().name(), &offered, &progress);
        let limit = self.origin.state().gateway.response_timeout;
        let sending = self.upstream.send(&self.origin, &offered, request);
        let answered = crate::front::within(limit, Some(&progress), sending).await;
        let (mut response, lease) = answered.unwrap_or(Err(Refused::Silent))?;
        clean::response(&mut response)?;
        Ok((response, lease))
    }

    fn deliver(&self, response: Response<Incoming>, lease: Lease, mut visit: Visit) -> Answer {
        let status = response.status();
        visit.answered(status.as_u16());
        self.origin.services().metrics.answered(match status.as_u16() {
            ..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        });
        let interval = self.origin.state().gateway.recheck_interval;
        let withdrawn = Arc::clone(&self.origin).withdrawn(self.name.clone(), interval);
        response.map(|incoming| Either::Left(Passing::new(incoming, lease, visit, withdrawn)))
    }
}

/// Whether it is a request that can be passed on, and nothing behind which others could hide.
fn may_pass(request: &Request<Incoming>) -> Result<(), Refused> {
    if request.method() == Method::CONNECT {
        return Err(Refused::Asked("CONNECT leads nowhere here"));
    }
    let offers = request.headers().get_all(header::UPGRADE);
    let mut offers = offers.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    // An offer of HTTP/2 may be left alone, and clients make it without need.
    if offers.any(|offer| !offer.trim_ascii().eq_ignore_ascii_case(b"h2c")) {
        return Err(Refused::Upgrade);
    }
    Ok(())
}

/// Spawns the requests of HTTP/2 connections, so that they are tracked.
#[derive(Clone)]
struct RequestTasks(Tasks);

impl<F> hyper::rt::Executor<F> for RequestTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn("service-request", future));
    }
}

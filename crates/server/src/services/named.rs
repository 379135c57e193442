//! The entrance of our own agent: a request names the service, and its stream is switched to raw bytes.
//!
//! Called by `enrolment::requests` for what an agent asks under [`PATH_PREFIX`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use moorline_mtls::server::hello::Replayed;
use moorline_mux::Watch;
use moorline_wire::services::{PATH_PREFIX, PROTOCOL, name_of};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::OwnedSemaphorePermit,
};

use super::{catalog::Offered, origin::Origin, pass::Passage, proxy, refused::Refused, table::Mode, visit};
use crate::enrolment::requests::refusal;

/// What the first byte of TLS is: a handshake record.
const HANDSHAKE_RECORD: u8 = 22;

/// For the handshake, where a program comes with TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Whether a request of an agent is for a service.
pub(crate) fn is_asked(path: &str) -> bool {
    path.starts_with(PATH_PREFIX)
}

/// Answers a request for a service: when it is `101`, the stream leads there, until `gone` says that it was given up.
pub(crate) async fn ask(origin: &Arc<Origin>, request: Request<Incoming>, gone: Watch) -> Response<Full<Bytes>> {
    match answer(origin, request, gone).await {
        Ok(()) => switched(),
        Err(refused) => refusal(&refused.status()),
    }
}

/// What becomes of a stream that was switched.
enum Leads {
    Through(Box<Passage>),
    ToHttp(Arc<Offered>),
}

async fn answer(origin: &Arc<Origin>, mut request: Request<Incoming>, gone: Watch) -> Result<(), Refused> {
    let counted = |refused: Refused| {
        visit::count(origin, &refused);
        refused
    };
    asks_properly(&request).map_err(counted)?;
    let path = request.uri().path();
    let name = name_of(path).ok_or_else(|| {
        let behind = path.strip_prefix(PATH_PREFIX).unwrap_or_default();
        counted(Refused::Unknown(behind.chars().take(moorline_wire::services::MAX_NAME).collect()))
    })?;
    // Before anything is written down of it.
    let place = origin.stream().map_err(counted)?;
    let offered = origin.by_name(&name).inspect_err(|refused| visit::not_found(origin, refused))?;
    let leads = match &offered.service.mode {
        Mode::PassThrough => Leads::Through(Box::new(Passage::open(origin, &offered, 101).await?)),
        Mode::Http { .. } => Leads::ToHttp(offered),
    };
    origin.services().metrics.entered("name");
    let upgrade = hyper::upgrade::on(&mut request);
    let origin = Arc::clone(origin);
    let tasks = origin.state().tasks.clone();
    tasks.spawn("service-stream", async move {
        let phases = origin.state().phases.clone();
        tokio::select! {
            () = Box::pin(lead(origin, upgrade, leads, place)) => {}
            () = gone => {}
            () = phases.cancelled() => {}
        }
    });
    Ok(())
}

fn asks_properly(request: &Request<Incoming>) -> Result<(), Refused> {
    let asks = request.headers().get(header::UPGRADE).is_some_and(|protocol| protocol == PROTOCOL);
    let connection = request.headers().get_all(header::CONNECTION);
    let mut listed = connection.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let switches = listed.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    if *request.method() != Method::POST || !asks || !switches {
        return Err(Refused::Asked("services are asked for by POST, with an upgrade to moorline-service/1"));
    }
    Ok(())
}

fn switched() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    response
}

async fn lead(origin: Arc<Origin>, upgrade: OnUpgrade, leads: Leads, _place: OwnedSemaphorePermit) {
    let Ok(upgraded) = upgrade.await else { return };
    let io = TokioIo::new(upgraded);
    match leads {
        Leads::Through(passage) => passage.carry(io).await,
        Leads::ToHttp(offered) => speak(&origin, &offered, io).await,
    }
}

/// HTTP, or TLS and HTTP in it, as the first byte says.
async fn speak<IO>(origin: &Arc<Origin>, offered: &Arc<Offered>, mut io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = [0];
    let Ok(Ok(1)) = tokio::time::timeout(proxy::IDLE, io.read(&mut first)).await else { return };
    let io = Replayed::new(first.to_vec(), io);
    let name = &offered.service.name;
    match &offered.acceptor {
        Some(acceptor) if first == [HANDSHAKE_RECORD] => match acceptor.accept(io, HANDSHAKE).await {
            Ok((tls, _nobody)) => {
                let h2 = tls.alpn() == Some(b"h2");
                proxy::serve(origin, name, tls, h2).await;
            }
            Err(error) => visit::count(origin, &Refused::Handshake(error)),
        },
        _ => proxy::serve(origin, name, io, false).await,
    }
}

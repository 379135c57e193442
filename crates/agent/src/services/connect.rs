//! Asks the server for a service: one request for an upgrade, on a stream of its own.
//!
//! Nothing of the caller is sent with it, so that it may be asked again over another session where one is just being lost.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use moorline_model::Status;
use moorline_mux::{Paced, Watch};
use moorline_wire::{
    limits,
    services::{self, ServiceName},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::refuse::Refusal;
use crate::tunnel::{Live, Opened, SERVER_NAME, Standing, Usable};

/// From the caller's connection to the service's: more than the server gives itself to reach it, so that its answer is the
/// one that is heard.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a service.
pub(super) struct Connected {
    pub(super) io: TokioIo<Upgraded>,
    /// Resolves when the stream below is lost, which nobody notices who has nothing to read or write.
    pub(super) lost: Watch,
    /// The session waits for it.
    pub(super) counted: TaskTrackerToken,
}

/// Connects over the first session that can.
pub(super) async fn connect(
    live: &Arc<Live>,
    standing: &watch::Receiver<Standing>,
    service: &ServiceName,
) -> Result<Connected, Refusal> {
    let deadline = Instant::now() + PATIENCE;
    let mut refusal = None;
    for session in live.usable() {
        match tokio::time::timeout_at(deadline, over(&session, service)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) if error.may_pass_elsewhere() => refusal = Some(error),
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => return Err(Refusal::Silent(PATIENCE)),
        }
    }
    Err(refusal.unwrap_or_else(|| Refusal::NoSession(standing.borrow().outcome.as_ref().map(|outcome| outcome.reason))))
}

async fn over(session: &Usable, service: &ServiceName) -> Result<Connected, Refusal> {
    let Opened { stream, counted } = session.open().await.map_err(Refusal::Open)?;
    let lost = stream.watch();
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .handshake(TokioIo::new(Paced::reading(stream)))
        .await
        .map_err(Refusal::Lost)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(services::path(service))
        .header(header::HOST, SERVER_NAME)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, services::PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(|_error| Refusal::Strange("the service's name cannot be asked for"))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(Refusal::Lost)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(response).await);
        }
        if !is_ours(response.headers()) {
            return Err(Refusal::Strange("the server switched to something else"));
        }
        hyper::upgrade::on(response).await.map_err(Refusal::Lost)
    };
    let driving = async { drop(connection.with_upgrades().await) };
    tokio::pin!(exchange, driving);
    let upgraded = tokio::select! {
        done = &mut exchange => done,
        () = &mut driving => exchange.await,
    }?;
    Ok(Connected { io: TokioIo::new(upgraded), lost, counted })
}

fn is_ours(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(services::PROTOCOL.as_bytes()))
}

/// What the server said instead.
async fn refused(response: Response<Incoming>) -> Refusal {
    let code = response.status();
    let body = Limited::new(response.into_body(), limits::AGENT_BODY).collect().await;
    let told = body.ok().and_then(|body| serde_json::from_slice::<Status>(&body.to_bytes()).ok());
    match told.filter(|status| status.code == code.as_u16() && code.as_u16() >= 400) {
        Some(status) => Refusal::Server(status),
        None => Refusal::Strange("the server's answer is none (it may be too old to know services)"),
    }
}

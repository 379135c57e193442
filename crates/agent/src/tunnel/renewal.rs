//! The agent's next certificate: asked for over a session, kept, and used for the next dial.
//!
//! [`Tunnel::renew`](super::Tunnel::renew) is spawned by `app` once. It sleeps until two thirds of the certificate's
//! life are over, or until the server says that it is time; the key is made here and never leaves. Nothing is lost by a
//! process that dies in between: until the new files are kept the old ones work, and from then on the new ones do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use moorline_model::Timestamp;
use moorline_mtls::KeyPair;
use moorline_mux::OpenError;
use moorline_pki::CertificateInfo;
use moorline_wire::{RENEW_PATH, RenewAnswer, RenewRequest, limits};
use rand::RngExt as _;
use thiserror::Error;
use tokio::{sync::watch, time::Instant};

use super::{
    backoff::{Backoff, Bounds},
    live::{Live, Opened, Usable},
};
use crate::{
    config::now,
    identity::{Files, HomeError, Identity, InvalidFiles},
    metrics::Metrics,
    serve::Chain,
};

/// The part of a certificate's life after which it is renewed, and how much sooner or later: agents that were enrolled
/// together are not to come together.
const DUE: f64 = 2.0 / 3.0;
const JITTER: f64 = 0.05;

/// How often it is looked what the clock says: machines sleep and clocks jump, so not by one long timer.
const LOOK: Duration = Duration::from_secs(60);

/// From the open of the stream to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between attempts: no longer than this, and no longer than a tenth of what is left of the certificate.
const LONGEST: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_secs(2);

/// When to get the next certificate, and over what.
pub(super) struct Renewal {
    live: Arc<Live>,
    /// When the server, or a refusal, wants a renewal.
    asked: watch::Sender<Option<Instant>>,
}

/// Why there is no new certificate.
#[derive(Debug, Error)]
pub(super) enum RenewError {
    #[error("no session with the server")]
    NoSession,
    #[error("no stream to the server")]
    Open(#[source] OpenError),
    #[error("the server did not answer within {0:?}")]
    Timeout(Duration),
    #[error("the server gave no answer (it may be too old to renew certificates)")]
    Http(#[source] hyper::Error),
    #[error("the server's answer cannot be read: {0}")]
    Body(String),
    #[error("the server refused: {} {}", .status, .message.escape_debug())]
    Refused { status: StatusCode, message: String, after: Option<Duration> },
    #[error("cannot make a key")]
    Key(#[from] moorline_csr::RequestError),
    #[error("the server's answer is of no use")]
    Useless(#[source] InvalidFiles),
    #[error("the server signed something else than was asked for")]
    Foreign,
    #[error("the certificate cannot be kept")]
    Home(#[from] HomeError),
}

impl Renewal {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self { live, asked: watch::Sender::new(None) }
    }

    /// Whether there is a session to ask over.
    pub(super) fn can_ask(&self) -> bool {
        !self.live.usable().is_empty()
    }

    /// The server wants the certificate renewed within this time; the moment is chosen here.
    pub(super) fn order(&self, within: Duration) {
        let at = Instant::now() + within.min(LONGEST * 12).mul_f64(rand::random());
        self.asked.send_modify(|asked| *asked = Some(asked.map_or(at, |before| before.min(at))));
    }

    /// Renews when it is time, for ever.
    pub(super) async fn run(&self, identity: &Arc<Identity>, metrics: &Metrics) {
        let (mut asked, mut changes) = (self.asked.subscribe(), identity.changes());
        let mut backoff = Backoff::new();
        let mut rest: Option<Instant> = None;
        let mut part = chosen_part();
        loop {
            let certificate = identity.keys().current();
            let wait = if asked.borrow_and_update().is_some_and(|at| at <= Instant::now()) {
                Duration::ZERO
            } else {
                due_in(certificate.info(), part, now())
            };
            if wait.is_zero() && rest.is_none_or(|rest| rest <= Instant::now()) {
                let pause = match self.renew(identity).await {
                    Ok(()) => {
                        metrics.renewed("ok");
                        backoff = Backoff::new();
                        self.asked.send_modify(|asked| *asked = None);
                        part = chosen_part();
                        SHORTEST
                    }
                    // Whoever has no session is busy getting one; that is told elsewhere.
                    Err(RenewError::NoSession) => SHORTEST,
                    Err(error) => {
                        metrics.renewed("failed");
                        let pause = rest_after(&error, &certificate, &mut backoff);
                        let (reason, ends) = (Chain(&error).to_string(), certificate.not_after());
                        tracing::warn!(reason, retry_in = ?pause, %ends, "the certificate was not renewed");
                        pause
                    }
                };
                rest = Some(Instant::now() + pause);
                continue;
            }
            let until_order = asked.borrow().map(|at| at.saturating_duration_since(Instant::now()));
            let until = wait.min(until_order.unwrap_or(LOOK)).min(LOOK);
            let wake = rest.map_or(Instant::now() + until, |rest| rest.max(Instant::now() + until.min(SHORTEST)));
            // A change of either is looked at above; both channels live as long as this.
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                _ = asked.changed() => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// One renewal, from the key to the files that are kept.
    async fn renew(&self, identity: &Arc<Identity>) -> Result<(), RenewError> {
        let before = identity.keys().current().fingerprint();
        // Another process with the same home may have been quicker.
        identity.refresh().await;
        if identity.keys().current().fingerprint() != before {
            return Ok(());
        }
        identity.home().writable().await?;
        let request = moorline_csr::Request::generate()?;
        let session = self.live.usable().into_iter().next().ok_or(RenewError::NoSession)?;
        let asking = ask(&session, &request.request_pem);
        let answer =
            tokio::time::timeout(PATIENCE, asking).await.map_err(|_elapsed| RenewError::Timeout(PATIENCE))??;
        let RenewAnswer { certificate, roots } = answer;
        let files = Files { roots_pem: roots, certificate_pem: certificate, key_pem: request.key_pem, address: None };
        let (keys, _roots) = files.check().map_err(RenewError::Useless)?;
        let held = identity.keys().current();
        if keys.info().common_names != held.info().common_names || !keys.info().for_clients {
            return Err(RenewError::Foreign);
        }
        let mut theirs = false;
        let keep = |kept: Files| {
            // Whoever put another there meanwhile knows better.
            theirs = kept.check().is_ok_and(|(keys, _)| keys.fingerprint() != before);
            if theirs { kept } else { Files { address: kept.address, ..files } }
        };
        identity.change(keep).await?;
        if theirs {
            tracing::info!("the certificate was replaced by another while it was renewed: that one is kept");
            return Ok(());
        }
        tracing::info!(fingerprint = %keys.fingerprint(), not_after = %keys.not_after(), "certificate renewed");
        Ok(())
    }
}

fn chosen_part() -> f64 {
    DUE + rand::rng().random_range(-JITTER..=JITTER)
}

/// How long until so much of the certificate's life is over.
fn due_in(certificate: &CertificateInfo, part: f64, now: Timestamp) -> Duration {
    let life = certificate.not_after.since(certificate.not_before);
    certificate.not_before.saturating_add(life.mul_f64(part)).since(now)
}

fn rest_after(error: &RenewError, certificate: &KeyPair, backoff: &mut Backoff) -> Duration {
    let left = certificate.not_after().since(now());
    let cap = (left / 10).clamp(SHORTEST, LONGEST);
    let rest = backoff.next(Bounds { base: SHORTEST, cap }, &mut rand::rng());
    match error {
        RenewError::Refused { after: Some(after), .. } => rest.max((*after).min(cap)),
        RenewError::NoSession
        | RenewError::Open(_)
        | RenewError::Timeout(_)
        | RenewError::Http(_)
        | RenewError::Body(_)
        | RenewError::Refused { .. }
        | RenewError::Key(_)
        | RenewError::Useless(_)
        | RenewError::Foreign
        | RenewError::Home(_) => rest,
    }
}

async fn ask(session: &Usable, request_pem: &str) -> Result<RenewAnswer, RenewError> {
    let Opened { stream, counted: _counted } = session.open().await.map_err(RenewError::Open)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(RenewError::Http)?;
    let body = RenewRequest { request: request_pem.to_owned() };
    let body = serde_json::to_vec(&body).map_err(|error| RenewError::Body(error.to_string()))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(RENEW_PATH)
        .header(header::HOST, super::dial::SERVER_NAME)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| RenewError::Body(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(RenewError::Http)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), limits::AGENT_BODY).collect().await;
        let body = body.map_err(|error| RenewError::Body(error.to_string()))?.to_bytes();
        Ok::<_, RenewError>((status, headers, body))
    };
    let driving = async { drop(connection.await) };
    let (status, headers, body) = {
        tokio::pin!(exchange, driving);
        tokio::select! {
            done = &mut exchange => done?,
            () = &mut driving => exchange.await?,
        }
    };
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| RenewError::Body(error.to_string()));
    }
    let message = serde_json::from_slice::<moorline_model::Status>(&body).ok().map(|status| status.message);
    let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let message = message.unwrap_or_default().chars().take(limits::TEXT).collect();
    Err(RenewError::Refused { status, message, after: after.map(Duration::from_secs) })
}

#[cfg(test)]
mod tests {
    use moorline_ca::Authority;
    use moorline_model::ClusterUid;

    use super::*;

    #[test]
    fn two_thirds_of_every_life() {
        let start = Timestamp::from_unix_seconds(1_795_233_180);
        let authority = Authority::generate("tunnel", start, Duration::from_secs(1 << 30)).unwrap();
        for life in [60, 3600, 86_400 * 365] {
            let issued = authority
                .issue_agent(
                    &"east".parse().unwrap(),
                    &ClusterUid::from_bytes([1; 16]),
                    start,
                    Duration::from_secs(life),
                )
                .unwrap();
            let pair = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
            for part in [DUE - JITTER, DUE, DUE + JITTER] {
                let due = due_in(pair.info(), part, start).as_secs();
                assert!((life * 55 / 100..life * 75 / 100).contains(&due), "{due} of {life}");
            }
            assert_eq!(due_in(pair.info(), DUE, start.saturating_add(Duration::from_secs(life))), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_followed_within_its_time() {
        for _ in 0..100 {
            let renewal = Renewal::new(Arc::default());
            let began = Instant::now();
            renewal.order(Duration::from_secs(60));
            renewal.order(Duration::from_secs(10));
            let at = renewal.asked.borrow().unwrap();
            assert!(at <= began + Duration::from_secs(10));
            assert!(!renewal.can_ask());
        }
    }
}

//! The server's own certificates, where they are signed here: made anew at each start and well before they end.
//!
//! The composition root makes one for each door and spawns its renewal. They live in memory only: what must last is the
//! authority that signs them.

use std::{net::IpAddr, sync::Arc, time::Duration};

use moorline_ca::{Authority, IssueError, SubjectName};
use moorline_model::Timestamp;
use moorline_mtls::{KeyPair, KeyPairError, Source};
use thiserror::Error;

use crate::{clock, control::issue::Issuer, metrics::Metrics, state::State};

/// How long a certificate lives that is signed for one of our own doors.
const LIFE: Duration = Duration::from_secs(90 * 86_400);

/// How much of its life may be left when it is replaced.
const RENEW_AT: Duration = Duration::from_secs(30 * 86_400);

/// How often that is looked at. Clocks jump and machines sleep, so not by one long timer.
const LOOK: Duration = Duration::from_secs(3600);

/// A certificate of one of our doors, signed here.
pub(crate) struct Serving {
    door: &'static str,
    signer: Signer,
    names: Vec<SubjectName>,
    source: Source<KeyPair>,
    not_after: Timestamp,
}

/// Who signs it.
pub(crate) enum Signer {
    /// An authority that stays the same.
    Fixed(Box<Authority>),
    /// The tunnel's, which changes.
    Tunnel(Arc<Issuer>),
}

/// Why no certificate could be made.
#[derive(Debug, Error)]
pub(crate) enum ServingError {
    #[error("cannot sign a certificate: {0}")]
    Issue(#[from] IssueError),
    #[error("the signed certificate cannot be used: {0}")]
    Use(#[from] KeyPairError),
}

impl Serving {
    /// Signs the first one.
    ///
    /// # Errors
    /// [`ServingError`]: most often the authority itself is not in its time.
    pub(crate) fn new(door: &'static str, signer: Signer, names: Vec<SubjectName>) -> Result<Self, ServingError> {
        let pair = signer.sign(&names)?;
        let not_after = pair.not_after();
        Ok(Self { door, signer, names, source: Source::fixed(pair), not_after })
    }

    /// What the acceptor takes.
    pub(crate) fn source(&self) -> Source<KeyPair> {
        self.source.clone()
    }

    /// Its last second.
    pub(crate) fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Replaces it in time, and whenever its authority changes, for ever. To be spawned, and ended with the process.
    pub(crate) async fn renew(mut self, state: Arc<State>) {
        let mut changes = state.issuer.changes();
        let tunnel = matches!(self.signer, Signer::Tunnel(_));
        loop {
            let changed = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                changed = changes.changed() => tunnel && changed.is_ok(),
            };
            if changed || self.not_after.since(clock::now()) <= RENEW_AT {
                self.replace(&state.metrics);
            }
        }
    }

    fn replace(&mut self, metrics: &Metrics) {
        match self.signer.sign(&self.names) {
            Ok(pair) => {
                let not_after = pair.not_after();
                self.source.replace(pair);
                self.not_after = not_after;
                metrics.expires(self.door, not_after);
                tracing::info!(certificate = self.door, %not_after, "renewed");
            }
            Err(error) => tracing::warn!(certificate = self.door, %error, "cannot renew"),
        }
    }
}

impl Signer {
    fn sign(&self, names: &[SubjectName]) -> Result<KeyPair, ServingError> {
        match self {
            Self::Tunnel(issuer) => issuer.issue_door(names, LIFE),
            Self::Fixed(authority) => {
                let issued = authority.issue_server(names, clock::now(), LIFE)?;
                Ok(KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())?)
            }
        }
    }
}

/// The names by which this machine reaches itself, then the ones given, each once.
pub(crate) fn names(given: &[String], listen: IpAddr) -> Vec<SubjectName> {
    let own = ["localhost", "127.0.0.1", "::1"].map(SubjectName::from_host);
    let listen = (!listen.is_unspecified()).then_some(SubjectName::Ip(listen));
    let given = given.iter().map(|name| SubjectName::from_host(name));
    let mut names: Vec<SubjectName> = Vec::new();
    for name in own.into_iter().chain(listen).chain(given) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

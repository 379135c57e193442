//! How an agent without a certificate gets its first one: by a join token, or by what its Kubernetes attests.
//!
//! Called by the program and by the command line, for `join` and before an agent that has no certificate starts. The
//! agent makes its key, which never leaves this machine, verifies the server by the pin of its authority, and only then
//! shows its token. The key is kept before it is asked for: an agent that dies between the answer and its being kept asks
//! again with the same token *and* the same key, and gets the same certificate.

mod exchange;

use std::{fmt, io, sync::Arc, time::Duration};

use moorline_csr::{Request, RequestError};
use moorline_model::ClusterName;
use moorline_mtls::{HandshakeError, HttpsConnector, Refusal};
use moorline_wire::{JoinAnswer, JoinProof, JoinRefused, JoinRequest};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    config::{self, ConfigError, RawConfig, RawJoin, Shown},
    identity::{Files, Home, HomeError},
    serve::Chain,
    tunnel::{DialError, Proxy},
};

/// Between two tries of an agent that joins at its start: doubled each time, within these bounds, and varied.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Everything that joining takes.
pub struct Join {
    pub(crate) shown: Shown,
    pub(crate) proxy: Option<(Proxy, Option<HttpsConnector>)>,
    /// Whether the address is the operator's own, and not the token's.
    pub(crate) told_elsewhere: bool,
    pub(crate) home: Arc<dyn Home>,
    pub(crate) replace: bool,
}

/// A cluster that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Joined {
    /// Its name.
    pub name: ClusterName,
    /// Where its certificate and key are now.
    pub place: String,
    /// Where the agent dials.
    pub address: String,
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "joined as the cluster {:?}: certificate and key written to {}", self.name.as_str(), self.place)?;
        write!(f, "start the agent: moorline-agent --cert-dir {}  (it dials {})", self.place, self.address)
    }
}

/// Why nobody has joined.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// There is a certificate already.
    #[error("{0} holds the certificate of an agent already")]
    Enrolled(String),
    /// The certificate could not be kept, or what is there not be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No key, or no request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The server was not reached, or is not the one of the pin.
    #[error("{reason}")]
    Dial {
        /// All causes, in one line.
        reason: String,
        /// What to look at.
        remedy: &'static str,
        /// Whether it may pass by itself.
        retryable: bool,
    },
    /// The server said no.
    #[error("the management cluster refused ({}): {}", .0.reason, .0.message)]
    Refused(JoinRefused),
    /// The connection ended without an answer.
    #[error("the management cluster gave no answer: {0}")]
    NoAnswer(String),
    /// What it answered is of no use.
    #[error("the management cluster's answer is of no use: {0}")]
    Answer(String),
}

/// Why an agent could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// What is written is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It has no certificate, and got none.
    #[error("cannot join the management cluster")]
    Join(#[from] JoinError),
}

impl Join {
    /// Reads what the flags name, and checks everything.
    ///
    /// # Errors
    /// All problems together.
    pub fn from_raw(raw: &RawJoin) -> Result<Self, ConfigError> {
        config::join(raw)
    }

    /// Joins, and keeps the certificate.
    ///
    /// # Errors
    /// [`JoinError`]. Whoever tries again with the same token goes on where this was left.
    pub async fn run(&self) -> Result<Joined, JoinError> {
        match self.home.load().await {
            Ok(_there) if !self.replace => return Err(JoinError::Enrolled(self.home.place())),
            Ok(_) => {}
            Err(error) if is_missing(&error) || self.replace => {}
            Err(error) => return Err(error.into()),
        }
        self.home.writable().await?;
        let request = self.request().await?;
        let asked = JoinRequest {
            name: self.shown.name.clone(),
            proof: self.shown.proof.clone(),
            request: request.request_pem.clone(),
        };
        let answer = exchange::ask(&self.shown, self.proxy.as_ref(), &asked).await?;
        let files = self.files(answer, request.key_pem)?;
        self.home.save(&files).await?;
        self.home.keep_pending(None).await?;
        let address = files.address.unwrap_or_default();
        Ok(Joined { name: self.shown.name.clone(), place: self.home.place(), address })
    }

    /// The key that was made for this token before, or a new one, which is kept before anybody is asked about it.
    async fn request(&self) -> Result<Request, JoinError> {
        let mark = match &self.shown.proof {
            JoinProof::Token { id, .. } => id.as_str(),
            JoinProof::Attestation(_) => self.shown.name.as_str(),
        };
        let kept = self.home.pending().await?;
        if let Some(key) = kept.as_ref().and_then(|kept| kept.split_once('\n')).filter(|(of, _)| *of == mark)
            && let Ok(request) = Request::for_key(key.1)
        {
            return Ok(request);
        }
        let request = Request::generate()?;
        let kept = Zeroizing::new(format!("{mark}\n{}", *request.key_pem));
        self.home.keep_pending(Some(&kept)).await?;
        Ok(request)
    }

    fn files(&self, answer: JoinAnswer, key_pem: Zeroizing<String>) -> Result<Files, JoinError> {
        if answer.name != self.shown.name {
            return Err(JoinError::Answer(format!("it is for the cluster {}", answer.name)));
        }
        let address = if self.told_elsewhere { self.shown.address.to_string() } else { answer.address };
        let files =
            Files { roots_pem: answer.roots, certificate_pem: answer.certificate, key_pem, address: Some(address) };
        files.check().map_err(|error| JoinError::Answer(error.to_string()))?;
        Ok(files)
    }
}

/// Joins if the agent of this configuration has no certificate and is told how to get one. Tries for as long as trying
/// may help; ends with the process. Gives the identity to start with ([`Config::starting_with`](crate::Config)) where it
/// is kept elsewhere than in the directory that is read first.
///
/// # Errors
/// [`StartError`]: what only people can mend.
pub async fn at_start(raw: &RawConfig) -> Result<Option<Files>, StartError> {
    let Some(how) = config::join_at_start(raw) else { return Ok(None) };
    let home = config::home(raw)?;
    match home.load().await {
        Err(error) if is_missing(&error) => {}
        // It has one; or what is there is broken, which the configuration tells.
        there => return Ok(there.ok()),
    }
    let join = Join { home: Arc::clone(&home), ..Join::from_raw(&how)? };
    let mut pause = PAUSE;
    loop {
        match join.run().await {
            Ok(joined) => {
                tracing::info!(cluster = %joined.name, place = joined.place, "joined");
                return Ok(Some(home.load().await.map_err(JoinError::Home)?));
            }
            Err(error) if error.retryable() => {
                let wait = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                let remedy = error.remedy();
                tracing::warn!(remedy, retry_in = ?wait, "cannot join yet: {}", Chain(&error));
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_missing(error: &HomeError) -> bool {
    matches!(error, HomeError::Read { error, .. } if error.kind() == io::ErrorKind::NotFound)
}

impl JoinError {
    /// Whether trying again may help without anybody doing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Dial { retryable, .. } => *retryable,
            Self::Refused(refused) => refused.retryable(),
            Self::NoAnswer(_) => true,
            Self::Enrolled(_) | Self::Home(_) | Self::Request(_) | Self::Answer(_) => false,
        }
    }

    /// What to do; empty where the error itself says so.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Dial { remedy, .. } => remedy,
            Self::Enrolled(_) => "start the agent, name an empty directory by --cert-dir, or say --replace",
            Self::NoAnswer(_) => "try again with the same token: it is not lost, whatever became of the answer",
            Self::Home(_) => "give this user the directory, or name another by --cert-dir; the same token works again",
            Self::Request(_) | Self::Refused(_) => "",
            Self::Answer(_) => "is the server of another version than this agent?",
        }
    }

    fn dial(error: &DialError) -> Self {
        let of_tls = if let DialError::Tls(_, error) = error { tls_remedy(error) } else { None };
        // A server of the wrong pin, name or time does not become another by waiting; what hangs up may be full.
        let retryable = if let DialError::Tls(_, error) = error { error.retryable() } else { error.retryable() };
        Self::Dial { reason: Chain(error).to_string(), remedy: of_tls.unwrap_or_else(|| error.remedy()), retryable }
    }
}

/// What to do where only joining knows it.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not said here is said for all handshakes")]
fn tls_remedy(error: &HandshakeError) -> Option<&'static str> {
    match error {
        HandshakeError::WrongPin => Some(
            "nothing was sent. Is the address that of the management cluster which made the token? If its authority was \
             replaced since, make a new token; if not, somebody is in between",
        ),
        HandshakeError::Time(_) => Some("compare this machine's clock with the management cluster's"),
        HandshakeError::AlpnMismatch { .. } | HandshakeError::Refused(Refusal::NoApplicationProtocol) => {
            Some("the server knows no joining: is it another port, a proxy that ends TLS, or an older server?")
        }
        _ => None,
    }
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join").field("name", &self.shown.name).field("home", &self.home).finish_non_exhaustive()
    }
}

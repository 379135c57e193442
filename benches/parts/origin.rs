//! What stands for a kube-apiserver and for services of the management cluster, in a process of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use moorline_ca::{Authority, SubjectName};
use moorline_mtls::KeyPair;
use moorline_testkit::upstream::Upstream;

use super::{Process, say};

/// What stands for a kube-apiserver, in a process of its own.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    /// The same over TLS, and who to believe about it, in PEM.
    pub(crate) tls: SocketAddr,
    pub(crate) authority: String,
    _process: Process,
}

impl Origin {
    /// An origin on a free port.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start() -> Result<Self> {
        let (process, line) = Process::start(&["be-an-origin"], "")?;
        let (address, tls, authority) = serde_json::from_str(&line)?;
        Ok(Self { address, tls, authority, _process: process })
    }

    /// As agents call it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Is one, in the process that was started for it, for as long as what it gives is kept.
///
/// # Errors
/// When no port can be had.
pub(super) async fn play() -> Result<[Upstream; 2]> {
    let (authority, keys) = authority()?;
    let (plain, tls) = (Upstream::start().await?, Upstream::start_tls(keys).await?);
    say(&serde_json::to_string(&(plain.address(), tls.address(), authority))?);
    Ok([plain, tls])
}

/// Who says that loopback is loopback, and the keys that it says so of.
fn authority() -> Result<(String, KeyPair)> {
    const LIFE: Duration = Duration::from_secs(24 * 3600);
    let now = SystemTime::now().into();
    let authority = Authority::generate("origin", now, LIFE)?;
    let issued = authority.issue_server(&[SubjectName::Ip(Ipv4Addr::LOCALHOST.into())], now, LIFE)?;
    let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())?;
    Ok((authority.certificate_pem().to_owned(), keys))
}

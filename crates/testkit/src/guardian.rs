//! Programs that speak the dialect of Calico's Guardian: a stand-in of our own in Go, and the real one.
//!
//! Used by the interop ring, by the tests with real Kubernetes and by the soak. The stand-in also ends its sessions and
//! streams in odd ways, on command; the real one is what it is.

mod enrolled;
mod namespace;
mod real;
mod stand_in;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use enrolled::{connected, create, enrol, enrol_brought};
pub use real::Real;
pub use stand_in::StandIn;

/// What either is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it dials.
    pub tunnel: SocketAddr,
    /// The directory of `management-cluster.crt`, `managed-cluster.crt` and `managed-cluster.key`. The log goes there.
    pub files: PathBuf,
    /// The URL of the kube-apiserver.
    pub kube_apiserver: String,
    /// The directory of `token` and `ca.crt`, as a pod finds them.
    pub account: PathBuf,
    /// The one version of TLS to speak with the tunnel; both when `None`. The real one cannot be told.
    pub tls: Option<Tls>,
    /// Between two dials when one has failed.
    pub retry: Duration,
    /// Ends for ever when a session ends by anything but a polite end, as v3.31 does. The real one cannot be told.
    pub mortal: bool,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

impl Settings {
    /// With the files of one directory, and nothing else special.
    #[must_use]
    pub fn new(tunnel: SocketAddr, files: &Path, kube_apiserver: &str) -> Self {
        Self {
            tunnel,
            files: files.to_owned(),
            kube_apiserver: kube_apiserver.to_owned(),
            account: files.to_owned(),
            tls: None,
            retry: Duration::from_millis(200),
            mortal: false,
        }
    }
}

/// What can be done to a running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stands still, as a machine that sleeps.
    Stop,
    /// Goes on.
    Continue,
    /// Ends at once, without a word of its own.
    Kill,
    /// Is asked to end.
    Terminate,
}

fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    use rustix::process::{Pid, Signal as Unix, kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let signal = match signal {
        Signal::Stop => Unix::STOP,
        Signal::Continue => Unix::CONT,
        Signal::Kill => Unix::KILL,
        Signal::Terminate => Unix::TERM,
    };
    Ok(kill_process(anyhow::Context::context(pid, "no such process")?, signal)?)
}

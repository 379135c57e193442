//! Sessions of Calico's open-source Guardian: admission by the fingerprint of its certificate, and nothing else said.
//!
//! Called by `admit` for who came without any protocol of the TLS handshake and showed a certificate. Guardian has no
//! hello and hears no reason: whoever may not come in is hung up on, and the log, the metrics and the cluster's events say
//! why. It dials again every five seconds, for ever.

mod farewell;
mod life;

use std::{net::SocketAddr, sync::Arc};

use farewell::Farewell;
use life::Life;
use moorline_model::{Dialect, SessionId};
use moorline_mtls::{InnerConnector, PresentedPeer, ServerStream};
use moorline_process::Phase;
use moorline_wire::CloseReason;
use tokio::{net::TcpStream, time::Instant};

use super::{
    admit::{Admission, Refusal, word},
    check,
    session::{Abilities, Introduction, Session},
};
use crate::{
    clock,
    events::Happening,
    front::{guardian::channels::Channels, line::Line},
    registry::Cluster,
    services,
};

/// Streams that one Guardian may have open for services, as many as its own side accepts at once.
const MAX_STREAMS: usize = 1000;

/// What stands in the place of a version that it never says.
const VERSION: &str = "guardian";

impl Admission {
    /// Takes a session in, or hangs up.
    pub(super) fn admit_guardian(
        &self,
        tls: ServerStream<TcpStream>,
        peer: &PresentedPeer,
        remote: SocketAddr,
        began: Instant,
    ) {
        let io = Farewell::new(tls, self.state.tasks.clone());
        let cluster = match self.judge_guardian(peer) {
            Ok(cluster) => cluster,
            Err(refusal) => return self.refuse_guardian(peer, remote, &refusal),
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let why = Refusal::new(CloseReason::Overloaded, "the server has as many sessions as it may");
            return self.refuse_guardian(peer, remote, &why);
        };
        let inner = match InnerConnector::new(peer.fingerprint()) {
            Ok(inner) => inner,
            Err(error) => {
                let why = Refusal::new(CloseReason::ProtocolError, error.to_string());
                return self.refuse_guardian(peer, remote, &why);
            }
        };
        let inbound = MAX_STREAMS.max(self.state.services.inbound_streams());
        let config = self.mux_config(inbound).with_raw_go_peer();
        let (handle, incoming, driver) = moorline_mux::session(io.let_in(), config);
        let line = Line::Guardian(Channels::new(handle.clone(), inner, self.state.pools.clone()));
        let session = Arc::new(Session::new(introduction(peer, &cluster, remote), handle, line));
        let cluster = match self.attach(&cluster, &session) {
            Ok(cluster) => cluster,
            Err(refusal) => return self.refuse_guardian(peer, remote, &refusal),
        };
        // Nothing is waited for from here on: see `admit`.
        let (state, tasks) = (&self.state, &self.state.tasks);
        tasks.spawn("tunnel-session", driver);
        let up = services::serve_guardian(Arc::clone(state), Arc::clone(&cluster), Arc::clone(&session), incoming);
        tasks.spawn("guardian-services", up);
        tasks.spawn("tunnel-check", check::keep(Arc::clone(state), Arc::clone(&cluster), Arc::clone(&session)));
        let life = Life::new(Arc::clone(state), cluster, session, place);
        self.welcomed(began);
        tasks.spawn("tunnel-control", life.run());
    }

    fn judge_guardian(&self, peer: &PresentedPeer) -> Result<Arc<Cluster>, Refusal> {
        if self.state.phases.current() >= Phase::StopAccepting {
            return Err(Refusal::new(CloseReason::Draining, "this server is about to stop"));
        }
        let fingerprint = peer.fingerprint();
        let registry = &self.state.registry;
        let Some(cluster) = registry.by_certificate(&fingerprint, Dialect::Guardian) else {
            let why = if registry.by_fingerprint(&fingerprint).is_some() {
                "its certificate was issued for Moorline's own agent, and lets no Guardian in"
            } else {
                "no cluster of dialect guardian has its certificate: it was not registered, revoked or replaced"
            };
            return Err(Refusal::new(CloseReason::UnknownCertificate, why));
        };
        match peer.check_validity(clock::now()) {
            Ok(()) => Ok(cluster),
            Err(time) => Err(Refusal::new(CloseReason::Expired, format!("its certificate is {time}"))),
        }
    }

    fn refuse_guardian(&self, peer: &PresentedPeer, remote: SocketAddr, refusal: &Refusal) {
        let (reason, why, fingerprint) = (word(&refusal.reason), refusal.told.as_str(), peer.fingerprint());
        self.state.metrics.refuse(reason);
        if let Some(cluster) = self.state.registry.by_fingerprint(&fingerprint) {
            let happening = Happening::Refused { reason, remote: remote.ip(), why: why.to_owned() };
            self.state.events.emit(&cluster, happening);
        }
        let certificate = peer.common_name().unwrap_or_default();
        tracing::warn!(%remote, reason, certificate, %fingerprint, "a Guardian refused: {why}");
    }
}

fn introduction(peer: &PresentedPeer, cluster: &Cluster, remote: SocketAddr) -> Introduction {
    Introduction {
        id: SessionId::from_bytes(rand::random()),
        cluster: cluster.name().clone(),
        remote,
        fingerprint: peer.fingerprint(),
        certificate_ends: peer.not_after(),
        since: clock::now(),
        agent_version: VERSION.to_owned(),
        kubernetes_version: None,
        cluster_uid: None,
        abilities: Abilities { probe: true, ..Abilities::default() },
        trusts: Vec::new(),
    }
}

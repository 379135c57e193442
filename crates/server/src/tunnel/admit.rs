//! From an accepted connection to a session: TLS, hello, and the decision whether this agent may come in.
//!
//! Called by `listener` in the connection's own task. Every refusal is counted, logged with its reason, and told to the
//! agent as far as it may know; nothing about other clusters leaks.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use moorline_model::Dialect;
use moorline_mtls::{Arrived, Arriving, HandshakeError, TunnelAcceptor, VerifiedPeer};
use moorline_mux::{CloseReason as MuxReason, Config, Handle, Incoming, Role, Stream};
use moorline_process::Phase;
use moorline_wire::{
    CloseReason, Decoder, Hello, Message, Refused, SessionLimits, Welcome, encode, limits, negotiate, too_far_apart,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    time::Instant,
};

use super::{
    check,
    control::Control,
    orders::Order,
    session::{Abilities, Introduction, Session, fingerprints},
};
use crate::{
    clock,
    enrolment::{adopt, authorities, requests},
    events::Happening,
    front::{line::Line, pool::Pool},
    registry::{AttachError, Cluster},
    state::State,
};

/// Streams that an agent may open: the control stream, and few more than none for what later versions add.
const MAX_AGENT_STREAMS: usize = 8;

/// How long a refused agent is listened to after it was told why, so that the reason is not lost with the connection.
const LINGER: Duration = Duration::from_secs(1);

/// What an agent is told to wait where the server has no room for it now.
const COME_BACK: Duration = Duration::from_secs(5);

/// What admission needs.
pub(crate) struct Admission {
    pub(super) state: Arc<State>,
    pub(super) acceptor: TunnelAcceptor,
    /// One place for each session of all clusters.
    pub(super) places: Arc<Semaphore>,
}

/// An agent whose certificate was verified, on its control stream.
struct Arrival {
    peer: VerifiedPeer,
    incoming: Incoming,
    remote: SocketAddr,
    handle: Handle,
    stream: Stream,
    decoder: Decoder,
}

/// Why an agent may not come in.
pub(super) struct Refusal {
    pub(super) reason: CloseReason,
    /// For the agent.
    pub(super) told: String,
    /// For our log, where it says more.
    logged: Option<String>,
    after: Option<Duration>,
}

impl Refusal {
    pub(super) fn new(reason: CloseReason, told: impl Into<String>) -> Self {
        Self { reason, told: told.into(), logged: None, after: None }
    }

    fn come_back(mut self) -> Self {
        self.after = Some(COME_BACK.mul_f64(0.5 + rand::random::<f64>() / 2.0));
        self
    }
}

impl Admission {
    /// Reads what a peer wants; none where it was refused already.
    pub(super) async fn hear(&self, socket: TcpStream, remote: SocketAddr) -> Option<Arriving<TcpStream>> {
        let heard = self.acceptor.hear(socket, self.state.tunnel.handshake_timeout).await;
        heard.map_err(|error| self.no_handshake(remote, &error)).ok()
    }

    /// Does the handshake and hears the hello; comes back when the session runs on its own, or was refused.
    pub(super) async fn admit(&self, arriving: Arriving<TcpStream>, remote: SocketAddr) {
        let began = Instant::now();
        let (tls, peer) = match arriving.finish().await {
            Ok(Arrived::Agent(tls, peer)) => (tls, peer),
            Ok(Arrived::Guardian(tls, peer)) => return self.admit_guardian(tls, &peer, remote, began),
            Ok(Arrived::Stranger(_)) => return self.no_handshake(remote, &HandshakeError::NoClientCertificate),
            Err(error) => return self.no_handshake(remote, &error),
        };
        let inbound = MAX_AGENT_STREAMS.saturating_add(self.state.services.inbound_streams());
        let (handle, incoming, driver) = moorline_mux::session(tls, self.mux_config(inbound));
        self.state.tasks.spawn("tunnel-session", driver);
        let mut arrival = match self.control_stream(handle.clone(), incoming, peer, remote).await {
            Ok(arrival) => arrival,
            Err(why) => {
                handle.close(MuxReason::Local("no hello"));
                self.state.metrics.refuse("hello-timeout");
                tracing::info!(%remote, reason = "hello-timeout", "agent refused: {why}");
                return;
            }
        };
        let outcome = match self.hear_hello(&mut arrival).await {
            Ok(hello) => {
                adopt::adopt(&self.state, &arrival.peer).await;
                self.judge(&arrival, &hello).map(|judged| (judged, hello))
            }
            Err(refusal) => Err(refusal),
        };
        let outcome = outcome.and_then(|((cluster, protocol), hello)| {
            let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_full| {
                Refusal::new(CloseReason::Overloaded, "the server has as many sessions as it may").come_back()
            })?;
            let session = self.introduce(&arrival, hello, &cluster);
            let cluster = self.attach(&cluster, &session)?;
            Ok((cluster, session, protocol, place))
        });
        match outcome {
            Err(refusal) => self.refuse(arrival, refusal).await,
            Ok((cluster, session, protocol, place)) => {
                // Nothing is waited for from the attachment to here: whoever is cut short in between would leave a session
                // that nobody ends.
                authorities::greet(&self.state, &session);
                let welcome = self.welcome(&session, protocol);
                let stream = (arrival.stream, arrival.decoder);
                let theirs = (Arc::clone(&cluster), Arc::clone(&session), arrival.incoming);
                let requests = requests::serve(Arc::clone(&self.state), theirs.0, theirs.1, theirs.2);
                self.state.tasks.spawn("agent-requests", requests);
                if session.about().abilities.probe {
                    let state = Arc::clone(&self.state);
                    let checking = check::keep(state, Arc::clone(&cluster), Arc::clone(&session));
                    self.state.tasks.spawn("tunnel-check", checking);
                }
                let control = Control::new(Arc::clone(&self.state), cluster, session, stream, (welcome, place));
                self.welcomed(began);
                self.state.tasks.spawn("tunnel-control", control.run());
            }
        }
    }

    pub(super) fn welcomed(&self, began: Instant) {
        self.state.metrics.welcomed.inc();
        self.state.metrics.admission_seconds.observe(began.elapsed().as_secs_f64());
    }

    /// How a session is multiplexed whose agent may open so many streams.
    pub(super) fn mux_config(&self, inbound: usize) -> Config {
        let tunnel = &self.state.tunnel;
        Config::new(Role::Server)
            .with_max_outbound_streams(tunnel.max_streams)
            .with_max_inbound_streams(inbound)
            .with_accept_backlog(inbound)
            .with_write_stall(tunnel.heartbeat_interval * limits::MISSED_HEARTBEATS)
            .with_memory(self.state.memory.clone())
    }

    fn no_handshake(&self, remote: SocketAddr, error: &HandshakeError) {
        let reason = error.reason();
        self.state.metrics.refuse(reason);
        if *error == HandshakeError::ClosedUnused {
            tracing::debug!(%remote, reason, "a connection was closed unused");
        } else {
            tracing::warn!(%remote, reason, "agent refused: {error}");
        }
    }

    async fn control_stream(
        &self,
        handle: Handle,
        mut incoming: Incoming,
        peer: VerifiedPeer,
        remote: SocketAddr,
    ) -> Result<Arrival, &'static str> {
        match tokio::time::timeout(self.state.tunnel.hello_timeout, incoming.accept()).await {
            Ok(Some(stream)) => Ok(Arrival { peer, incoming, remote, handle, stream, decoder: Decoder::new() }),
            Ok(None) => Err("it hung up before it said hello"),
            Err(_elapsed) => Err("it opened no control stream in time"),
        }
    }

    async fn hear_hello(&self, arrival: &mut Arrival) -> Result<Hello, Refusal> {
        let limit = self.state.tunnel.hello_timeout;
        match tokio::time::timeout(limit, first_message(&mut arrival.stream, &mut arrival.decoder)).await {
            Err(_elapsed) => {
                Err(Refusal::new(CloseReason::HelloTimeout, format!("no complete hello within {limit:?}")))
            }
            Ok(Err(why)) => Err(Refusal::new(CloseReason::ProtocolError, super::session::bounded(why))),
            // What it says of itself goes into refusals and log lines.
            Ok(Ok(Message::Hello(hello))) => {
                Ok(Hello { agent_version: super::session::bounded(hello.agent_version), ..hello })
            }
            Ok(Ok(other)) => {
                let why = format!("the first message must be a hello, not {:?}", other.kind());
                Err(Refusal::new(CloseReason::ProtocolError, why))
            }
        }
    }

    fn judge(&self, arrival: &Arrival, hello: &Hello) -> Result<(Arc<Cluster>, u32), Refusal> {
        if self.state.phases.current() >= Phase::StopAccepting {
            return Err(Refusal::new(CloseReason::Draining, "this server is about to stop").come_back());
        }
        let fingerprint = arrival.peer.fingerprint();
        let Some(cluster) = self.state.registry.by_certificate(&fingerprint, Dialect::Moorline) else {
            return Err(self.stranger(&arrival.peer));
        };
        if let Err(time) = arrival.peer.check_validity(clock::now()) {
            return Err(Refusal::new(CloseReason::Expired, format!("the certificate is {time}")));
        }
        let Some(protocol) = negotiate(hello.protocol_min, hello.protocol_max) else {
            let (min, max) = (hello.protocol_min, hello.protocol_max);
            let told = too_far_apart(&hello.agent_version, min, max, VERSION);
            return Err(Refusal::new(CloseReason::VersionUnsupported, told));
        };
        match &hello.cluster {
            Some(claim) if claim != cluster.name() => Err(Refusal {
                logged: Some(format!(
                    "the agent claims to be cluster {claim}, its certificate is of {}",
                    cluster.name()
                )),
                ..Refusal::new(
                    CloseReason::WrongCluster,
                    format!("this certificate does not stand for cluster {claim}"),
                )
            }),
            _ => Ok((cluster, protocol)),
        }
    }

    /// Why a certificate of ours stands for nobody, as far as its holder may know: it is about nothing but the cluster that
    /// the certificate itself names.
    fn stranger(&self, peer: &VerifiedPeer) -> Refusal {
        let fingerprint = peer.fingerprint();
        let named = adopt::named(peer);
        let known = named
            .as_ref()
            .and_then(|(name, uid)| self.state.registry.by_name(name).filter(|cluster| cluster.record().uid == *uid));
        let (reason, told) = match (&named, known.map(|cluster| cluster.record())) {
            (_, Some(record)) if record.accepts(&fingerprint) => (
                CloseReason::UnknownCertificate,
                "this certificate was issued for Calico's Guardian, and lets no other agent in",
            ),
            (Some(_), None) => (
                CloseReason::ClusterDeleted,
                "the cluster that this certificate was issued for is not registered here: it was deleted, or this \
                 server was restored from an older backup",
            ),
            (_, Some(record)) if record.revoked.is_some() => {
                (CloseReason::Revoked, "the certificates of this cluster were revoked")
            }
            (_, Some(record)) if record.retired.contains(&fingerprint) => {
                (CloseReason::UnknownCertificate, "this certificate was replaced by a newer one, which has connected")
            }
            _ => (
                CloseReason::UnknownCertificate,
                "no cluster has this certificate: the cluster was deleted, or its certificate replaced",
            ),
        };
        let logged = format!("{told} ({fingerprint}, issued for {:?})", peer.common_name().unwrap_or_default());
        Refusal { logged: Some(logged), ..Refusal::new(reason, told) }
    }

    fn introduce(&self, arrival: &Arrival, hello: Hello, cluster: &Arc<Cluster>) -> Arc<Session> {
        let about = Introduction {
            id: hello.session_id,
            cluster: cluster.name().clone(),
            remote: arrival.remote,
            fingerprint: arrival.peer.fingerprint(),
            certificate_ends: arrival.peer.not_after(),
            since: clock::now(),
            agent_version: hello.agent_version,
            kubernetes_version: hello.kubernetes_version,
            cluster_uid: hello.cluster_uid,
            abilities: Abilities::of(&hello.capabilities),
            trusts: fingerprints(&hello.roots),
        };
        let line = Line::Moorline(Pool::new(arrival.handle.clone(), self.state.pools.clone()));
        Arc::new(Session::new(about, arrival.handle.clone(), line))
    }

    /// Takes the session in. The cluster's other sessions must prove at once that they live: a returning agent never
    /// waits for its half-open predecessor.
    pub(super) fn attach(&self, cluster: &Arc<Cluster>, session: &Arc<Session>) -> Result<Arc<Cluster>, Refusal> {
        let tunnel = &self.state.tunnel;
        let overdue = tunnel.heartbeat_interval.mul_f64(1.5);
        let fingerprint = session.about().fingerprint;
        let attaching = self.state.registry.attach(&fingerprint, session, tunnel.max_sessions_per_cluster, overdue);
        let (cluster, attached) = match attaching {
            Ok(attached) => attached,
            Err(gone @ AttachError::Disowned) => {
                return Err(Refusal::new(CloseReason::UnknownCertificate, gone.to_string()));
            }
            Err(full @ AttachError::Full(_)) => {
                for other in cluster.sessions().iter() {
                    other.orders().give(Order::Probe);
                }
                return Err(Refusal::new(CloseReason::Overloaded, full.to_string()).come_back());
            }
        };
        for older in attached.older {
            older.set_suspect(true);
            older.orders().give(Order::Probe);
        }
        if let Some(silent) = attached.displaced {
            silent.leave();
            silent.orders().give(Order::Cut(CloseReason::Superseded));
        }
        let about = session.about();
        let sessions = cluster.sessions().len();
        let (remote, agent_version) = (about.remote, about.agent_version.clone());
        let happening = Happening::Connected { session: session.id(), remote, agent_version, sessions };
        self.state.events.emit(&cluster, happening);
        tracing::info!(
            cluster = %cluster.name(),
            session = %session.id(),
            %remote,
            agent_version = about.agent_version,
            sessions,
            "session began"
        );
        Ok(cluster)
    }

    fn welcome(&self, session: &Session, protocol: u32) -> Vec<u8> {
        let tunnel = &self.state.tunnel;
        encode(&Message::Welcome(Welcome {
            protocol,
            server_version: VERSION.to_owned(),
            session_id: session.id(),
            cluster: session.about().cluster.clone(),
            heartbeat_interval_ms: u64::try_from(tunnel.heartbeat_interval.as_millis()).unwrap_or(u64::MAX),
            limits: SessionLimits {
                streams: u32::try_from(tunnel.max_streams).unwrap_or(u32::MAX),
                request_head: limits::REQUEST_HEAD as u64,
            },
        }))
    }

    async fn refuse(&self, arrival: Arrival, refusal: Refusal) {
        let Arrival { peer, remote, handle, mut stream, .. } = arrival;
        let reason = word(&refusal.reason);
        self.state.metrics.refuse(reason);
        let why = refusal.logged.as_deref().unwrap_or(&refusal.told);
        if let Some(cluster) = self.state.registry.by_fingerprint(&peer.fingerprint()) {
            let happening = Happening::Refused { reason, remote: remote.ip(), why: refusal.told.clone() };
            self.state.events.emit(&cluster, happening);
        }
        let certificate = peer.common_name().unwrap_or_default();
        tracing::warn!(%remote, reason, certificate, fingerprint = %peer.fingerprint(), "agent refused: {why}");
        let after = refusal.after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let message =
            Message::Refused(Refused { reason: refusal.reason, message: refusal.told, reconnect_after_ms: after });
        let farewell = async {
            stream.write_all(&encode(&message)).await?;
            stream.shutdown().await?;
            // Until the agent has hung up, too.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        };
        drop(tokio::time::timeout(LINGER, farewell).await);
        handle.close(MuxReason::Local("refused"));
    }
}

/// The version of this server.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

async fn first_message(stream: &mut Stream, decoder: &mut Decoder) -> Result<Message, String> {
    let mut buffer = [0; 2048];
    loop {
        if let Some(message) = decoder.next().map_err(|error| error.to_string())? {
            return Ok(message);
        }
        match stream.read(&mut buffer).await {
            Ok(0) => return Err("the control stream ended before a hello".to_owned()),
            Ok(count) => decoder.push(buffer.get(..count).unwrap_or_default()),
            Err(error) => return Err(io_words(&error)),
        }
    }
}

fn io_words(error: &io::Error) -> String {
    format!("the control stream failed before a hello: {error}")
}

/// The metric label: a word of a fixed set.
pub(super) fn word(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::UnknownCertificate => "unknown-certificate",
        CloseReason::Expired => "expired",
        CloseReason::ClusterDeleted => "cluster-deleted",
        CloseReason::WrongCluster => "wrong-cluster",
        CloseReason::VersionUnsupported => "version-unsupported",
        CloseReason::HelloTimeout => "hello-timeout",
        CloseReason::ProtocolError => "protocol-error",
        CloseReason::Overloaded => "overloaded",
        CloseReason::Draining => "draining",
        CloseReason::Revoked => "revoked",
        CloseReason::HeartbeatMissed
        | CloseReason::Superseded
        | CloseReason::Shutdown
        | CloseReason::Unknown(_)
        | _ => "other",
    }
}

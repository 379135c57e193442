//! One session with the server, from the dial to its last request.
//!
//! Established by `tunnel`, then run in a task of its own. While it runs it accepts streams and keeps the control stream;
//! when it ends it tells why, and takes everything that ran in it along.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use moorline_model::{ClusterName, SessionId};
use moorline_mtls::{HandshakeError, explain_io};
use moorline_mux::{Handle, Incoming, OpenError, Role};
use moorline_process::Phase;
use moorline_wire::{
    CloseReason, GoAway, Hello, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, Welcome, capability, probe,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Tunnel,
    connected::Outcome,
    control::{Control, ControlEnd, HelloError, Surroundings},
    dial::{DialError, tls_remedy},
    route::Route,
};
use crate::{serve, standing::Reason};

/// Streams that the agent itself opens, besides those for services: the control stream, renewals, and room for later ones.
const OWN_STREAMS: usize = 8;

/// How long the requests of a retired session may go on. The server that sent it away has a shorter grace of its own;
/// this only bounds sessions that it forgets.
const RETIRED_GRACE: Duration = Duration::from_secs(120);

/// The same of a session that was left for one with a new certificate. Nothing presses there: watches may end by
/// themselves, which takes them minutes.
const RENEWED_GRACE: Duration = Duration::from_secs(3600);

/// From the agent's go-away to the drain: until then the server may still be sending what it chose this session for.
const NOTICE: Duration = Duration::from_secs(2);

/// How long saying goodbye may take once nothing runs any more.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a session is told that a successor serves.
#[derive(Clone, Debug, Default)]
pub(super) struct Retire {
    /// It ends when its requests have.
    pub(super) when_idle: CancellationToken,
    /// It ends.
    pub(super) now: CancellationToken,
    /// It has ended.
    pub(super) over: CancellationToken,
}

/// A session that the server has welcomed.
pub(super) struct Session {
    handle: Handle,
    incoming: Incoming,
    control: Control,
    welcome: Welcome,
    id: SessionId,
    /// The number of the way that it was dialled by.
    route: u64,
}

/// Why a session needs a successor.
#[derive(Debug)]
pub(super) enum Left {
    /// It still serves, but another way is to be gone.
    Moved,
    /// It still serves, but the server sends it away, and may have said when to come back.
    GoingAway { age: Duration, after: Option<Duration> },
    /// It serves, but with a certificate that was renewed.
    Renewed { age: Duration },
    /// It is gone; the reason is the server's last word, if it gave one.
    Ended { age: Duration, reason: Option<CloseReason> },
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(crate) enum EstablishError {
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS 1.3 tells a client only after its handshake that its certificate is not accepted.
    #[error("the server at {0} refused the connection after the handshake")]
    Refused(String, #[source] HandshakeError),
    #[error("the multiplexed session ended before it began")]
    Open(#[source] OpenError),
    #[error("the server at {0} gave no session")]
    Hello(String, #[source] HelloError),
}

enum Event {
    Control(ControlEnd),
    Mux(moorline_mux::CloseReason),
    Drained,
    Cut,
}

impl Session {
    /// Dials and says hello.
    pub(super) async fn establish(tunnel: &Tunnel, route: &Route) -> Result<Self, EstablishError> {
        let target = route.dialer.target();
        let io = route.dialer.dial().await?;
        let refusal = Arc::new(OnceLock::new());
        let io = Explained { io, refusal: Arc::clone(&refusal) };
        let config = moorline_mux::Config::new(Role::Client)
            .with_max_outbound_streams(OWN_STREAMS + tunnel.config.service_connections)
            .with_memory(tunnel.memory.clone());
        let (handle, incoming, driver) = moorline_mux::session(io, config);
        tunnel.tasks.spawn("session-io", driver);
        let id = SessionId::from_bytes(rand::random());
        let hello = hello(tunnel, id);
        let established = async {
            let stream = handle.open().await.map_err(EstablishError::Open)?;
            Control::establish(stream, hello).await.map_err(|error| EstablishError::Hello(target.clone(), error))
        };
        match established.await {
            Ok((control, welcome)) => Ok(Self { handle, incoming, control, welcome, id, route: route.number }),
            Err(error) => {
                handle.close(moorline_mux::CloseReason::Local("no session"));
                Err(match refusal.get() {
                    Some(refusal) => EstablishError::Refused(target, HandshakeError::clone(refusal)),
                    None => error,
                })
            }
        }
    }

    /// Serves until the session ends. `retire` says that a successor serves; `leaving` is told as soon as one is needed.
    pub(super) async fn run(self, tunnel: &Arc<Tunnel>, retire: Retire, leaving: oneshot::Sender<Left>) {
        let Self { handle, mut incoming, mut control, welcome, id, route } = self;
        let began = Instant::now();
        let (_counted, serving) = (tunnel.metrics.session(), tunnel.connected.session(route));
        let _over = retire.over.clone().drop_guard();
        tunnel.metrics.dialled("ok");
        tracing::info!(session = %id, cluster = %welcome.cluster, server_version = %welcome.server_version.escape_debug(),
            heartbeat_ms = welcome.heartbeat_interval_ms, "session established");
        let streams = Streams::default();
        let live = tunnel.live.serving(id, handle.clone(), streams.tracker.clone());
        let farewell = Farewell { leaving: Mutex::new(Some(leaving)), last_word: OnceLock::new(), began };
        let event = {
            let told = |going: &GoAway| {
                live.leaves();
                farewell.going_away(going);
            };
            let ordered = |within| tunnel.renewal.order(within);
            let around = Surroundings {
                identity: &tunnel.config.identity,
                renew: &ordered,
                retired: &retire.when_idle,
                health: tunnel.health.clone(),
                phases: &tunnel.phases,
                metrics: &tunnel.metrics,
                going_away: &told,
            };
            let interval = Duration::from_millis(welcome.heartbeat_interval_ms);
            tokio::select! {
                end = control.run(interval, around) => Event::Control(end),
                reason = handle.closed() => Event::Mux(reason),
                () = streams.accept(&mut incoming, tunnel) => Event::Mux(handle.closed().await),
                () = streams.wound_up(tunnel, &retire, &farewell) => Event::Drained,
                () = tunnel.phases.cancelled() => Event::Cut,
            }
        };
        let why = conclude(event, &handle, control, &streams).await;
        tunnel.metrics.session_ended(why.label);
        tracing::info!(session = %id, age = ?began.elapsed(), reason = why.text, "session ended");
        serving.ended(farewell.outcome(&why));
        farewell.ended();
    }
}

/// The requests of a session.
#[derive(Default)]
struct Streams {
    tracker: TaskTracker,
    /// Streams end with the request that they carry, or at once.
    draining: CancellationToken,
    /// The same, for streams that were opened after that: when the process stops.
    stopping: CancellationToken,
    /// Streams end where they are.
    cut: CancellationToken,
}

impl Streams {
    /// Accepts streams until the session has ended.
    async fn accept(&self, incoming: &mut Incoming, tunnel: &Tunnel) {
        while let Some(stream) = incoming.accept().await {
            tunnel.metrics.stream();
            // A session that is left still answers whoever asks whether it carries requests, or it would be taken for
            // stuck, and cut with what runs in it.
            let draining = if self.draining.is_cancelled() { &self.stopping } else { &self.draining };
            let serving = serve::stream(stream, Arc::clone(&tunnel.service), draining.clone());
            let (cut, counted) = (self.cut.clone(), self.tracker.token());
            tunnel.tasks.spawn("stream", async move {
                let _counted = counted;
                cut.run_until_cancelled(serving).await
            });
        }
    }

    /// Waits for the moment to end, and then for the requests that run.
    async fn wound_up(&self, tunnel: &Tunnel, retire: &Retire, farewell: &Farewell) {
        let stopping = tunnel.phases.reached(Phase::Draining);
        tokio::pin!(stopping);
        let retired = tokio::select! {
            () = retire.when_idle.cancelled() => true,
            () = &mut stopping => false,
        };
        // The server knows if it was the one that sent it away.
        let own_wish = retired && farewell.last_word.get().is_none();
        if own_wish {
            tokio::select! {
                () = tokio::time::sleep(NOTICE) => {}
                () = &mut stopping => {}
            }
        }
        self.draining.cancel();
        self.tracker.close();
        let grace = if own_wish { RENEWED_GRACE } else { RETIRED_GRACE };
        // What is left then is cut with the session.
        let over = async {
            if retired {
                tokio::time::sleep(grace).await;
            } else {
                std::future::pending().await
            }
        };
        let stopped = async {
            tunnel.phases.reached(Phase::Draining).await;
            self.stopping.cancel();
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = self.tracker.wait() => {}
            () = over => {}
            () = retire.now.cancelled() => {}
            () = stopped => {}
        }
    }
}

struct Why {
    label: &'static str,
    reason: Reason,
    text: String,
}

/// Ends whatever is left, in order where there is somebody to be orderly with.
async fn conclude(event: Event, handle: &Handle, control: Control, streams: &Streams) -> Why {
    let why = match &event {
        Event::Control(end) => Why { label: end.label(), reason: end.reason(), text: serve::Chain(end).to_string() },
        Event::Mux(reason) => Why { label: reason.label(), reason: Reason::SessionLost, text: reason.to_string() },
        Event::Drained => {
            Why { label: "drained", reason: Reason::Stopped, text: "its requests have finished".to_owned() }
        }
        Event::Cut => Why { label: "shutdown", reason: Reason::Stopped, text: "the agent shuts down".to_owned() },
    };
    if matches!(event, Event::Drained | Event::Cut) {
        streams.cut.cancel();
        handle.drain();
        // A server that does not play along is left without a goodbye.
        let goodbye = async {
            drop(control.finish().await);
            handle.closed().await
        };
        drop(tokio::time::timeout(GOODBYE, goodbye).await);
    }
    handle.close(moorline_mux::CloseReason::Local(why.label));
    streams.cut.cancel();
    why
}

/// What the supervisor learns, and when: as soon as a successor is needed, once.
struct Farewell {
    leaving: Mutex<Option<oneshot::Sender<Left>>>,
    last_word: OnceLock<CloseReason>,
    began: Instant,
}

impl Farewell {
    fn going_away(&self, going: &GoAway) {
        let after = going.reconnect_after_ms.map(Duration::from_millis);
        tracing::info!(reason = %going.reason, message = %going.message.escape_debug(), ?after,
            "the server sends this session away");
        // Only the first counts. After a final word (revoked, deleted) the session is cut next, and that is told then.
        let first = self.last_word.set(going.reason.clone()).is_ok();
        if first && going.reason.retryable() {
            self.tell(Left::GoingAway { age: self.began.elapsed(), after });
        }
    }

    /// Why there is no session any more: the server's last word, where it gave one.
    fn outcome(&self, why: &Why) -> Outcome {
        match self.last_word.get() {
            Some(word) => Outcome {
                reason: word.into(),
                text: format!("the server ended the session: {word}"),
                remedy: refusal_remedy(word),
            },
            None => Outcome {
                reason: why.reason,
                text: format!("the session ended: {}", why.text),
                remedy: "nothing to do here; the agent dials again",
            },
        }
    }

    fn ended(self) {
        let left = Left::ended(self.began.elapsed(), self.last_word.get().cloned());
        self.tell(left);
    }

    fn tell(&self, left: Left) {
        if let Some(leaving) = self.leaving.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A supervisor that is gone has no use for it.
            drop(leaving.send(left));
        }
    }
}

impl ControlEnd {
    fn reason(&self) -> Reason {
        match self {
            Self::Missed(_) => Reason::HeartbeatMissed,
            Self::Closed | Self::Broken(_) => Reason::SessionLost,
            Self::Protocol(_) => Reason::ProtocolError,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Missed(_) => "heartbeat-missed",
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::Protocol(_) => "protocol-error",
        }
    }
}

impl EstablishError {
    /// The step, as a metric label.
    pub(super) fn step(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.step(),
            Self::Refused(..) => "tls",
            Self::Hello(_, HelloError::Refused(_)) => "refused",
            Self::Open(_) | Self::Hello(..) => "hello",
        }
    }

    /// Whether the usual backoff may help.
    pub(super) fn retryable(&self) -> bool {
        match self {
            Self::Dial(error) => error.retryable(),
            Self::Refused(_, error) => error.retryable(),
            Self::Hello(_, HelloError::Refused(refused)) => refused.reason.retryable(),
            Self::Hello(_, HelloError::Version(_)) => false,
            Self::Open(_) | Self::Hello(..) => true,
        }
    }

    /// Whether the server does not know, or no longer knows, the certificate that it was shown.
    pub(super) fn certificate_is_refused(&self) -> bool {
        match self {
            Self::Hello(_, HelloError::Refused(refused)) => {
                matches!(
                    refused.reason,
                    CloseReason::UnknownCertificate | CloseReason::Revoked | CloseReason::ClusterDeleted
                )
            }
            Self::Refused(..) => true,
            Self::Dial(_) | Self::Open(_) | Self::Hello(..) => false,
        }
    }

    /// When the server said to come back.
    pub(super) fn asked(&self) -> Option<Duration> {
        match self {
            Self::Hello(_, HelloError::Refused(refused)) => refused.reconnect_after_ms.map(Duration::from_millis),
            Self::Dial(_) | Self::Refused(..) | Self::Open(_) | Self::Hello(..) => None,
        }
    }

    /// What to look at.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.remedy(),
            Self::Refused(_, error) => tls_remedy(error),
            Self::Hello(_, HelloError::Refused(refused)) => refusal_remedy(&refused.reason),
            Self::Hello(_, HelloError::Version(_)) => "install an agent of the server's version, or one next to it",
            Self::Open(_) | Self::Hello(..) => "look into the server's log at this time",
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other reasons pass by themselves")]
fn refusal_remedy(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::UnknownCertificate | CloseReason::Revoked | CloseReason::Expired | CloseReason::ClusterDeleted => {
            "register this cluster anew (moorline cluster add) and install its files"
        }
        CloseReason::WrongCluster => "install the certificate that was made for this cluster",
        CloseReason::VersionUnsupported => "install an agent of the server's version, or one next to it",
        _passing => "nothing to do here; the agent comes back by itself",
    }
}

fn hello(tunnel: &Tunnel, session_id: SessionId) -> Hello {
    let status = tunnel.health.borrow().status.clone();
    let cluster =
        tunnel.config.identity.keys().current().info().common_name().and_then(|name| name.parse::<ClusterName>().ok());
    Hello {
        protocol_min: OLDEST_PROTOCOL_VERSION,
        protocol_max: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        session_id,
        cluster_uid: status.cluster_uid,
        kubernetes_version: status.kubernetes_version,
        capabilities: [probe::CAPABILITY, capability::RENEW, capability::ROOTS].map(str::to_owned).to_vec(),
        cluster,
        roots: super::control::believed(&tunnel.config.identity),
    }
}

/// Keeps what TLS says about the first failing read, which the multiplexer knows as a broken transport only.
struct Explained<IO> {
    io: IO,
    refusal: Arc<OnceLock<HandshakeError>>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Explained<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &polled
            && let Some(explained) = explain_io(error)
        {
            // The first is the one that counts.
            let _first = self.refusal.get_or_init(|| explained);
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Explained<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

//! The control stream of one session, and with it the session's life: heartbeats, orders, the agent's messages, the end.
//!
//! Started by `admit` as the one task that a session has besides its multiplexer. It never waits for a single thing:
//! bytes in, bytes out, orders and the clock are looked at together, so an agent that stops reading cannot keep it from
//! noticing that the agent is dead.

use std::{
    future::poll_fn,
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use moorline_mux::Stream;
use moorline_wire::{
    CloseReason, Decoder, GoAway, Heartbeat, HeartbeatAck, Message, ProtocolError, RenewOrder, RootsOrder, RootsTaken,
    encode,
};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    ending::{Ending, begins},
    heartbeat::{Due, Heart, luck},
    listener::Rate,
    orders::Order,
    session::{Session, Upstream, fingerprints},
};
use crate::{clock, enrolment::renew, events::Happening, registry::Cluster, state::State};

/// Bytes that may wait for an agent that does not read its control stream: some dozens of messages. Beyond, it is cut.
const MAX_OUTBOX: usize = 16 * 1024;

/// How long a goodbye may be under way before the connection is cut: one slow round trip.
const GOODBYE: Duration = Duration::from_millis(250);

/// How long to wait for the reason of the session's end when its control stream ended: the multiplexer knows it by then,
/// unless it was the agent that ended this one stream.
const REASON: Duration = Duration::from_millis(50);

/// Log lines a second that one agent's words may fill, with a burst of two seconds' worth; more are left out.
const LINES: u32 = 4;

/// One session's control task.
pub(super) struct Control {
    state: Arc<State>,
    cluster: Arc<Cluster>,
    session: Arc<Session>,
    stream: Stream,
    decoder: Decoder,
    outbox: Vec<u8>,
    written: usize,
    heart: Heart,
    /// What was decided, and when the connection is cut.
    parting: Option<(Ending, Instant)>,
    ending: Option<Ending>,
    /// The agent said that it goes away.
    left: bool,
    /// For log lines that the agent causes: it decides how many messages it sends.
    lines: Rate,
    _place: OwnedSemaphorePermit,
}

enum Event {
    Message(Message),
    Order(Order),
    Timer,
    Malformed(String),
    StreamEnded,
}

impl Control {
    /// The control task of a session that is to be welcomed; `decoder` holds what came after the hello.
    pub(super) fn new(
        state: Arc<State>,
        cluster: Arc<Cluster>,
        session: Arc<Session>,
        (stream, decoder): (Stream, Decoder),
        (welcome, place): (Vec<u8>, OwnedSemaphorePermit),
    ) -> Self {
        begins(&state, &cluster);
        let heart = Heart::new(state.tunnel.heartbeat_interval, Instant::now(), luck());
        Self {
            state,
            cluster,
            session,
            stream,
            decoder,
            outbox: welcome,
            written: 0,
            heart,
            parting: None,
            ending: None,
            left: false,
            lines: Rate::new(LINES, Instant::now()),
            _place: place,
        }
    }

    /// Runs until the session has ended.
    pub(super) async fn run(mut self) {
        let mut timer = pin!(sleep_until(Instant::now()));
        let ending = loop {
            match self.keep_time() {
                ControlFlow::Break(ending) => break ending,
                ControlFlow::Continue(wake) => timer.as_mut().reset(wake),
            }
            let event = poll_fn(|cx| self.poll_event(cx, timer.as_mut())).await;
            match event {
                Event::Timer => {}
                Event::Order(order) => self.obey(order),
                Event::Message(message) => self.hear(message),
                Event::Malformed(why) => self.part(Ending::Protocol(why), CloseReason::ProtocolError),
                Event::StreamEnded => break self.reason_of_end().await,
            }
            if self.outbox.len() > MAX_OUTBOX {
                break Ending::NotReading;
            }
        };
        self.ending = Some(ending);
    }

    /// Does what is due by the clock; says when to look again.
    fn keep_time(&mut self) -> ControlFlow<Ending, Instant> {
        let now = Instant::now();
        if let Some((ending, cut)) = &self.parting {
            let said = self.outbox.is_empty() && self.session.handle().stats().unsent == 0;
            return if now >= *cut || said && now + GOODBYE / 2 >= *cut {
                ControlFlow::Break(ending.clone())
            } else {
                ControlFlow::Continue(now + GOODBYE / 4)
            };
        }
        match self.heart.due(now, self.session.handle().last_read_age(), luck()) {
            Due::Nothing(next) => ControlFlow::Continue(next),
            Due::Dead => ControlFlow::Break(Ending::HeartbeatMissed),
            Due::ProbeFailed => ControlFlow::Break(Ending::Superseded),
            Due::Beat { sequence, missed } => {
                if missed {
                    self.state.metrics.heartbeats_missed.inc();
                }
                let ended = clock::now() > self.session.about().certificate_ends;
                if ended && !renew::outlives_its_certificate(&self.cluster, &self.session) {
                    self.part(Ending::Expired, CloseReason::Expired);
                }
                self.send(&Message::Heartbeat(Heartbeat { sequence }));
                ControlFlow::Continue(now)
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Event> {
        if self.poll_send(cx).is_err() {
            return Poll::Ready(Event::StreamEnded);
        }
        if let Poll::Ready(order) = self.session.orders().poll_next(cx) {
            return Poll::Ready(Event::Order(order));
        }
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Event::Timer);
        }
        self.poll_message(cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        while let Some(rest) = self.outbox.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        // Given back: an idle session holds no buffer.
        self.outbox = Vec::new();
        self.written = 0;
        Ok(())
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            // After the goodbye nothing counts but the end: a decoder that failed would fail for ever.
            let next = if self.parting.is_some() { Ok(None) } else { self.decoder.next() };
            match next {
                Ok(Some(message)) => return Poll::Ready(Event::Message(message)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Event::Malformed(error.to_string())),
            }
            let mut bytes = [0; 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    if self.parting.is_none() {
                        self.decoder.push(buffer.filled());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Event::StreamEnded),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Probe => {
                let sequence = self.heart.probe(Instant::now(), self.state.tunnel.probe_timeout, luck());
                self.send(&Message::Heartbeat(Heartbeat { sequence }));
            }
            Order::GoAway { reason, after } => {
                let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                self.send(&go_away(reason, Some(after)));
            }
            Order::Renew(within) if self.session.about().abilities.renew => {
                let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                self.send(&Message::Renew(RenewOrder { within_ms }));
            }
            Order::TakeRoots if self.session.about().abilities.roots => {
                let (pem, _) = self.state.issuer.roots();
                self.send(&Message::Roots(RootsOrder { pem }));
            }
            Order::Renew(_) | Order::TakeRoots => {
                tracing::warn!(
                    cluster = %self.cluster.name(), agent_version = self.session.about().agent_version,
                    "the agent is too old to change its certificate and authorities by itself: upgrade it"
                );
            }
            Order::Cut(reason) => self.part(Ending::Ordered(reason.clone()), reason),
        }
    }

    /// Says goodbye; the connection is cut when that is on its way, or soon.
    fn part(&mut self, ending: Ending, reason: CloseReason) {
        self.session.leave();
        if self.parting.is_none() {
            self.parting = Some((ending, Instant::now() + GOODBYE));
            self.send(&go_away(reason, None));
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Heartbeat(Heartbeat { sequence }) => {
                self.send(&Message::HeartbeatAck(HeartbeatAck { sequence }));
            }
            Message::HeartbeatAck(HeartbeatAck { sequence }) => self.hear_answer(sequence),
            Message::Status(status) => {
                let upstream = if status.upstream_ok {
                    Upstream::Well
                } else {
                    Upstream::Failing(status.upstream_reason.unwrap_or_else(|| "no reason given".to_owned()))
                };
                self.hear_upstream(upstream, status.kubernetes_version, status.cluster_uid);
            }
            Message::GoAway(leave) => {
                if self.lines.take(Instant::now()) {
                    tracing::info!(
                        cluster = %self.cluster.name(), session = %self.session.id(), reason = %leave.reason,
                        "the agent goes away: nothing new is sent to it"
                    );
                }
                self.left = true;
                self.session.leave();
                self.cluster.refresh();
            }
            Message::RootsTaken(taken) => self.hear_roots(taken),
            Message::Error(error) if self.lines.take(Instant::now()) => {
                let error = super::session::bounded(error.message);
                let (cluster, session) = (self.cluster.name(), self.session.id());
                tracing::warn!(%cluster, %session, error, "the agent did not understand a message");
            }
            Message::Error(_) => {}
            Message::Unknown(kind) => self.send(&Message::Error(ProtocolError {
                message: "this version of the server does not know messages of this type".to_owned(),
                message_type: Some(kind),
            })),
            Message::Hello(_) | Message::Welcome(_) | Message::Refused(_) | _ => {
                let why = format!("a message of type {:?} came at the wrong moment", message.kind());
                self.part(Ending::Protocol(why), CloseReason::ProtocolError);
            }
        }
    }

    fn hear_roots(&mut self, taken: RootsTaken) {
        self.session.trusts_now(fingerprints(&taken.roots));
        let (cluster, session) = (self.cluster.name(), self.session.id());
        match taken.error {
            None => self.state.events.emit(&self.cluster, Happening::AuthoritiesTaken),
            Some(error) if self.lines.take(Instant::now()) => {
                let error = super::session::bounded(error);
                tracing::warn!(%cluster, %session, error, "the agent does not take the authorities that it was sent");
            }
            Some(_) => {}
        }
    }

    fn hear_answer(&mut self, sequence: u64) {
        let Some(answer) = self.heart.answered(sequence, Instant::now()) else { return };
        self.session.answered(answer.round_trip);
        self.state.metrics.heartbeat_seconds.observe(answer.round_trip.as_secs_f64());
        if answer.probe_passed {
            self.session.set_suspect(false);
        }
    }

    fn hear_upstream(&mut self, upstream: Upstream, version: Option<String>, uid: Option<String>) {
        let news = self.session.tell(upstream.clone(), version, uid) && self.lines.take(Instant::now());
        self.cluster.refresh();
        let (cluster, session) = (self.cluster.name(), self.session.id());
        match upstream {
            Upstream::Well if news => {
                tracing::info!(%cluster, %session, "the agent reaches its kube-apiserver");
                self.state.events.emit(&self.cluster, Happening::UpstreamWell);
            }
            Upstream::Failing(reason) if news => {
                let why = super::session::bounded(reason);
                tracing::warn!(%cluster, %session, reason = why, "the agent cannot reach its kube-apiserver");
                self.state.events.emit(&self.cluster, Happening::UpstreamFailing { why });
            }
            Upstream::Well | Upstream::Failing(_) | Upstream::Untold => {}
        }
    }

    fn send(&mut self, message: &Message) {
        self.outbox.extend_from_slice(&encode(message));
    }

    async fn reason_of_end(&self) -> Ending {
        if let Some((ending, _)) = &self.parting {
            return ending.clone();
        }
        match tokio::time::timeout(REASON, self.session.handle().closed()).await {
            Ok(reason) => Ending::Gone(reason),
            Err(_elapsed) if self.left => Ending::Left,
            Err(_elapsed) => Ending::Protocol("the agent ended the control stream".to_owned()),
        }
    }
}

impl Drop for Control {
    /// The one end of every session, also of one whose task was cut short.
    fn drop(&mut self) {
        let ending = self.ending.take().unwrap_or(Ending::Ordered(CloseReason::Shutdown));
        ending.of(&self.state, &self.cluster, &self.session);
    }
}

fn go_away(reason: CloseReason, reconnect_after_ms: Option<u64>) -> Message {
    Message::GoAway(GoAway { reason, message: String::new(), reconnect_after_ms })
}

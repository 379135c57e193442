//! The life of one Guardian session: pings both ways, orders, the end.
//!
//! Started by admission as the one task that such a session has besides its multiplexer. There is no control stream:
//! what our own agent says there, Guardian does not say, and what it would be told, it cannot hear. Whether it lives is
//! asked by the multiplexer's own pings, whether requests get through by `check`.

use std::{
    future::{Future, pending, poll_fn},
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use moorline_mux::CloseReason as MuxReason;
use moorline_wire::CloseReason;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until},
};

use crate::{
    clock,
    registry::Cluster,
    state::State,
    tunnel::{
        ending::{Ending, begins},
        heartbeat::{Due, Heart, luck},
        orders::Order,
        session::Session,
    },
};

type Ping = Pin<Box<dyn Future<Output = Result<Duration, MuxReason>> + Send>>;

/// One session's task.
pub(super) struct Life {
    state: Arc<State>,
    cluster: Arc<Cluster>,
    session: Arc<Session>,
    heart: Heart,
    /// The ping under way, and the number of the beat that it answers.
    ping: Option<(u64, Ping)>,
    /// The beat that waits for it.
    next: Option<u64>,
    ending: Option<Ending>,
    _place: OwnedSemaphorePermit,
}

enum Event {
    Order(Order),
    Answer(Result<Duration, MuxReason>),
    Timer,
    Ended(MuxReason),
}

impl Life {
    pub(super) fn new(
        state: Arc<State>,
        cluster: Arc<Cluster>,
        session: Arc<Session>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        begins(&state, &cluster);
        let heart = Heart::new(state.tunnel.heartbeat_interval, Instant::now(), luck());
        Self { state, cluster, session, heart, ping: None, next: None, ending: None, _place: place }
    }

    /// Runs until the session has ended.
    pub(super) async fn run(mut self) {
        let session = Arc::clone(&self.session);
        let mut ended = pin!(session.handle().closed());
        let mut timer = pin!(sleep_until(Instant::now()));
        let ending = loop {
            match self.keep_time() {
                ControlFlow::Break(ending) => break ending,
                ControlFlow::Continue(wake) => timer.as_mut().reset(wake),
            }
            let event = tokio::select! {
                order = poll_fn(|cx| session.orders().poll_next(cx)) => Event::Order(order),
                answer = answered(&mut self.ping) => Event::Answer(answer),
                () = timer.as_mut() => Event::Timer,
                reason = ended.as_mut() => Event::Ended(reason),
            };
            match event {
                Event::Timer => {}
                Event::Order(Order::Cut(reason)) => break Ending::Ordered(reason),
                Event::Order(order) => self.obey(&order),
                Event::Answer(Ok(_round_trip)) => self.hear(),
                Event::Answer(Err(reason)) | Event::Ended(reason) => break Ending::Gone(reason),
            }
        };
        self.ending = Some(ending);
    }

    /// Does what is due by the clock; says when to look again.
    fn keep_time(&mut self) -> ControlFlow<Ending, Instant> {
        let now = Instant::now();
        loop {
            match self.heart.due(now, self.session.handle().last_read_age(), luck()) {
                Due::Nothing(next) => return ControlFlow::Continue(next),
                Due::Dead => return ControlFlow::Break(Ending::HeartbeatMissed),
                Due::ProbeFailed => return ControlFlow::Break(Ending::Superseded),
                Due::Beat { sequence, missed } => {
                    if missed {
                        self.state.metrics.heartbeats_missed.inc();
                    }
                    if clock::now() > self.session.about().certificate_ends {
                        return ControlFlow::Break(Ending::Expired);
                    }
                    self.beat(sequence);
                }
            }
        }
    }

    fn obey(&mut self, order: &Order) {
        match order {
            Order::Probe => {
                let sequence = self.heart.probe(Instant::now(), self.state.tunnel.probe_timeout, luck());
                self.beat(sequence);
            }
            // It cannot be told, and dials again by itself when the session has ended: once nothing runs any more.
            Order::GoAway { .. } => {
                self.session.leave();
                self.session.handle().drain();
                self.cluster.refresh();
            }
            // It cannot be told these either: it gets another certificate with another manifest.
            Order::Renew(_) | Order::TakeRoots | Order::Cut(_) => {}
        }
    }

    /// One ping at a time: its peer answers in order, so that more would tell no more.
    fn beat(&mut self, sequence: u64) {
        if self.ping.is_some() {
            self.next = Some(sequence);
            return;
        }
        let handle = self.session.handle().clone();
        self.ping = Some((sequence, Box::pin(async move { handle.ping().await })));
    }

    fn hear(&mut self) {
        let Some((sequence, _answered)) = self.ping.take() else { return };
        if let Some(answer) = self.heart.answered(sequence, Instant::now()) {
            self.session.answered(answer.round_trip);
            self.state.metrics.heartbeat_seconds.observe(answer.round_trip.as_secs_f64());
            if answer.probe_passed {
                self.session.set_suspect(false);
            }
        }
        if let Some(next) = self.next.take() {
            self.beat(next);
        }
    }
}

impl Drop for Life {
    /// The one end of every session, also of one whose task was cut short.
    fn drop(&mut self) {
        let ending = self.ending.take().unwrap_or(Ending::Ordered(CloseReason::Shutdown));
        ending.of(&self.state, &self.cluster, &self.session);
    }
}

async fn answered(ping: &mut Option<(u64, Ping)>) -> Result<Duration, MuxReason> {
    match ping {
        Some((_, ping)) => ping.await,
        None => pending().await,
    }
}

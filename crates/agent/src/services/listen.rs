//! Accepts the callers of one service, and sees each of them through in a task of its own.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use moorline_process::Phase;
use moorline_wire::services::ServiceName;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    Kind, Shared,
    caller::Caller,
    carry, connect,
    refuse::{self, Refusal},
};
use crate::{metrics::ServiceMetrics, serve::Chain, socket};

/// Pauses after a failed accept (out of file descriptors, most often): doubled each time, within these bounds.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a TLS connection begins with; whoever sends it reads no plain HTTP.
const TLS_HANDSHAKE: u8 = 22;

/// How often refusals of one service are logged; those between are counted.
const TELL: Duration = Duration::from_secs(10);

/// From the connection of an HTTP caller to their first byte; and where there is no place for them anyway.
const FIRST_BYTE: Duration = Duration::from_secs(60);
const REFUSED_BYTE: Duration = Duration::from_secs(5);

/// The listener of one service.
pub(super) struct Door {
    name: ServiceName,
    kind: Kind,
    /// One for each connection that is carried, or about to be.
    places: Arc<Semaphore>,
    metrics: ServiceMetrics,
    shared: Arc<Shared>,
    told: Mutex<Told>,
}

/// What a caller holds while they are served.
enum Seat {
    /// The place of a connection.
    Inside(OwnedSemaphorePermit),
    /// All places are taken, and they are told so.
    Outside(OwnedSemaphorePermit),
}

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    untold: u64,
}

impl Door {
    pub(super) fn new(
        (name, kind): (ServiceName, Kind),
        places: usize,
        metrics: ServiceMetrics,
        shared: Arc<Shared>,
    ) -> Self {
        Self { name, kind, places: Arc::new(Semaphore::new(places)), metrics, shared, told: Mutex::default() }
    }

    /// Accepts until the process stops.
    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut pause = ACCEPT_PAUSE;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => Some(accepted),
                () = self.shared.phases.reached(Phase::StopAccepting) => None,
            };
            match accepted {
                None => return,
                Some(Ok((caller, _address))) => {
                    pause = ACCEPT_PAUSE;
                    self.arrived(caller);
                }
                Some(Err(error)) => {
                    tracing::warn!(service = %self.name, %error, "a connection could not be accepted");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    }

    fn arrived(self: &Arc<Self>, caller: TcpStream) {
        if let Err(error) = socket::configure_accepted(&caller) {
            tracing::debug!(service = %self.name, %error, "a caller left at once");
            return;
        }
        let caller = Caller::new(caller);
        let Some(seat) = self.seat() else { return self.refused(&Refusal::TooMany) };
        let (door, phases) = (Arc::clone(self), self.shared.phases.clone());
        self.shared.tasks.spawn("service-connection", async move {
            // A caller who is dropped anywhere is cut.
            tokio::select! {
                () = door.serve(caller, seat) => {}
                () = phases.cancelled() => door.metrics.ended("cut"),
            }
        });
    }

    /// Where the next caller is let in, if anywhere.
    fn seat(&self) -> Option<Seat> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(Seat::Inside(place));
        }
        match self.kind {
            Kind::Tcp => None,
            Kind::Http => Arc::clone(&self.shared.answers).try_acquire_owned().ok().map(Seat::Outside),
        }
    }

    async fn serve(&self, caller: Caller, seat: Seat) {
        let _place = match seat {
            Seat::Inside(place) => place,
            Seat::Outside(_answer) => return self.refuse(caller, Refusal::TooMany).await,
        };
        let _running = self.metrics.running();
        // Until an HTTP caller has asked for something the server is not: probes of the port, and connections that are
        // kept for later, cost it nothing.
        if self.kind == Kind::Http {
            let asked = tokio::select! {
                byte = caller.first_byte(FIRST_BYTE) => byte.is_some(),
                () = self.shared.phases.reached(Phase::StopAccepting) => false,
            };
            if !asked {
                caller.hang_up().await;
                return self.metrics.ended("unused");
            }
        }
        let _work = self.shared.phases.work();
        match connect::connect(&self.shared.live, &self.shared.standing, &self.name).await {
            Ok(connected) => {
                let (ended, bytes) = carry::carry(caller, connected).await;
                let bytes = [&bytes.up, &bytes.down].map(|bytes| bytes.load(Ordering::Relaxed));
                self.metrics.carried(ended.label(), bytes);
            }
            Err(refusal) => self.refuse(caller, refusal).await,
        }
    }

    /// Tells the caller, if they understand it.
    async fn refuse(&self, caller: Caller, refusal: Refusal) {
        self.refused(&refusal);
        let plain = async || caller.first_byte(REFUSED_BYTE).await.is_some_and(|byte| byte != TLS_HANDSHAKE);
        if self.kind == Kind::Http && plain().await {
            refuse::answer(caller, refusal).await;
        }
    }

    fn refused(&self, refusal: &Refusal) {
        self.metrics.ended(refusal.label());
        let untold = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.last.is_some_and(|last| last.elapsed() < TELL) {
                told.untold += 1;
                return;
            }
            told.last = Some(Instant::now());
            std::mem::take(&mut told.untold)
        };
        tracing::warn!(service = %self.name, reason = refusal.label(), text = %Chain(refusal), since_last = untold,
            "a caller of a service of the management cluster was refused");
    }
}

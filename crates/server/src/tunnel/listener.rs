//! The tunnel door: accepts agents, within bounds.
//!
//! Started by the composition root, runs until the server stops accepting. A connection gets its task before its
//! handshake, so that a silent peer costs a task and a place, and no other agent's time.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_mtls::TunnelAcceptor;
use moorline_process::Phase;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};

use super::admit::Admission;
use crate::{
    enrolment::join::{self, Pace},
    guests::{Guest, Guests, NoRoom},
    state::State,
};

/// Pauses after a failed accept (out of file descriptors, most often): doubled each time, within these bounds.
const PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// What a handshake gets while others wait for its place, in which it has to be done on a long and busy way, too.
const PATIENCE: Duration = Duration::from_secs(3);

/// When the operating system asks a silent peer for a sign of life, how often, and how often in vain. Heartbeats are
/// quicker; this is for what they do not see.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5)).with_retries(3);

/// How long sent bytes may stay unacknowledged before the operating system gives the connection up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Bytes that the kernel may hold unsent. More would only wait there, where no small frame can overtake a bulk transfer.
const UNSENT: u32 = 128 * 1024;

/// The tunnel door.
pub(crate) struct Door {
    admission: Arc<Admission>,
    guests: Arc<Guests>,
    rate: Arc<Mutex<Rate>>,
    pace: Arc<Pace>,
}

impl Door {
    /// A door that lets in whom `acceptor` verifies.
    pub(crate) fn new(state: Arc<State>, acceptor: TunnelAcceptor) -> Self {
        let tunnel = &state.tunnel;
        Self {
            guests: Guests::new(tunnel.max_handshakes, tunnel.max_handshakes_per_address, PATIENCE),
            rate: Arc::new(Mutex::new(Rate::new(tunnel.handshake_rate, Instant::now()))),
            pace: Arc::new(Pace::new()),
            admission: Arc::new(Admission { places: Arc::new(Semaphore::new(tunnel.max_sessions)), acceptor, state }),
        }
    }

    /// Accepts agents until [`Phase::StopAccepting`]. To be spawned.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let phases = self.admission.state.phases.clone();
        let mut closing = std::pin::pin!(phases.reached(Phase::StopAccepting));
        let mut pause = PAUSE;
        loop {
            let accepted = tokio::select! {
                () = closing.as_mut() => return,
                accepted = self.next(&listener) => accepted,
            };
            match accepted {
                Ok((socket, remote, guest)) => {
                    pause = PAUSE;
                    self.begin(socket, remote, guest);
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept agents");
                    tokio::select! {
                        () = closing.as_mut() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// The next connection, once there is room for its handshake.
    async fn next(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr, Guest)> {
        loop {
            let (socket, remote) = listener.accept().await?;
            let metrics = &self.admission.state.metrics;
            if !locked(&self.rate).take(Instant::now()) {
                metrics.refuse("rate");
                tracing::debug!(%remote, reason = "rate", "connection of an agent closed: too many a second");
                continue;
            }
            match self.guests.wait(remote.ip()).await {
                Ok(guest) => return Ok((socket, remote, guest)),
                Err(NoRoom::Source | NoRoom::AtAll) => {
                    metrics.refuse("address-busy");
                    tracing::debug!(%remote, reason = "address-busy", "connection of an agent closed: too many from its address");
                }
            }
        }
    }

    fn begin(&self, socket: TcpStream, remote: SocketAddr, guest: Guest) {
        if let Err(error) = tune(&socket) {
            tracing::debug!(%remote, %error, "cannot set socket options");
        }
        let (admission, pace, rate) = (Arc::clone(&self.admission), Arc::clone(&self.pace), Arc::clone(&self.rate));
        let guest = Handshaking::new(Arc::clone(&admission.state), guest);
        self.admission.state.tasks.spawn("tunnel-admission", async move {
            let heard = guest.bound(remote, admission.hear(socket, remote)).await.flatten();
            match heard {
                None => {}
                Some(arriving) if arriving.joins() => {
                    // Whoever joins has places and rates of their own, and takes none from agents that have certificates.
                    drop(guest);
                    locked(&rate).give_back();
                    let joining = join::serve(&admission.state, &pace, arriving, remote);
                    tokio::select! {
                        () = joining => {}
                        () = admission.state.phases.cancelled() => {}
                    }
                }
                Some(arriving) => {
                    guest.bound(remote, Box::pin(admission.admit(arriving, remote))).await;
                }
            }
        });
    }
}

fn locked(rate: &Mutex<Rate>) -> MutexGuard<'_, Rate> {
    rate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handshake in progress, as long as it has its place.
struct Handshaking {
    state: Arc<State>,
    guest: Guest,
}

impl Handshaking {
    fn new(state: Arc<State>, guest: Guest) -> Self {
        state.metrics.handshakes.inc();
        Self { state, guest }
    }

    /// Does a part of it, unless it has to make room or the process ends.
    async fn bound<T>(&self, remote: SocketAddr, part: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = part => Some(done),
            () = self.state.phases.cancelled() => None,
            () = self.guest.must_leave() => {
                self.state.metrics.refuse("crowded-out");
                tracing::info!(%remote, reason = "crowded-out", "agent refused: its handshake took long, and others wait");
                None
            }
        }
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.state.metrics.handshakes.dec();
    }
}

fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

/// Whether it was the one connection that failed, and not the accepting.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// A bucket of handshakes, or of log lines: filled at a steady rate, with room for two seconds' worth.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    level: f64,
    at: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, level: per_second * 2.0, at: now }
    }

    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let filled = self.level + now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.level = filled.min(self.per_second * 2.0);
        self.at = now;
        if self.level < 1.0 {
            return false;
        }
        self.level -= 1.0;
        true
    }

    /// What was taken last was not for this.
    pub(crate) fn give_back(&mut self) {
        self.level += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_allows_a_burst_and_then_a_trickle() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        assert_eq!((0..100).filter(|_| rate.take(start)).count(), 20);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| rate.take(later)).count(), 5);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| rate.take(much_later)).count(), 20);
    }
}

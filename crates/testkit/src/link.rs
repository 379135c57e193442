//! A TCP relay on loopback that stands for the network between two programs: latency, stalls, silence and cuts.
//!
//! Everything that crosses is delayed but never reordered or changed. A kernel with netem would do the same; this needs
//! no privileges and runs the same everywhere.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Chunks in flight in each direction: bounds the memory of a link, far above what a test's bandwidth-delay needs.
const IN_FLIGHT: usize = 1024;
/// Largest chunk read at once.
const CHUNK: usize = 64 * 1024;

/// How the network behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// One-way delay; a round trip takes twice this.
    pub delay: Duration,
    /// Every n-th chunk waits for [`Weather::stall`] more, and all behind it with it: what a lost segment does to TCP.
    pub stall_every: Option<u32>,
    /// How long such a chunk waits: a retransmission time-out, 200 ms on Linux at least.
    pub stall: Duration,
    /// Nothing crosses, and nobody is told: a firewall that drops packets, a host that lost its power.
    pub silent: bool,
}

/// A relay from its own address to one target. Dropping it cuts everything.
pub struct Link {
    address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
    open: Arc<AtomicUsize>,
    closed: CancellationToken,
}

impl Link {
    /// Listens on a free port of loopback and relays each connection to `target`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let link = Self {
            address: listener.local_addr()?,
            weather: Arc::new(watch::Sender::new(Weather::default())),
            cut: Arc::new(std::sync::Mutex::new(CancellationToken::new())),
            open: Arc::new(AtomicUsize::new(0)),
            closed: CancellationToken::new(),
        };
        spawn(accept(listener, target, link.relay()));
        Ok(link)
    }

    /// Where to connect instead of the target.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather for what crosses from now on, on open connections too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Round trip of a quiet link.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.set(Weather { delay: round_trip / 2, ..Weather::default() });
    }

    /// Drops everything silently from now on: no FIN, no RST, nobody is told.
    pub fn fall_silent(&self) {
        let weather = *self.weather.borrow();
        self.set(Weather { silent: true, ..weather });
    }

    /// Resets every open connection; new ones are relayed as before.
    pub fn cut(&self) {
        let mut token = self.cut.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        token.cancel();
        *token = CancellationToken::new();
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn relay(&self) -> Relay {
        Relay {
            weather: Arc::clone(&self.weather),
            cut: Arc::clone(&self.cut),
            open: Arc::clone(&self.open),
            closed: self.closed.clone(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.closed.cancel();
        self.cut();
    }
}

#[derive(Clone)]
struct Relay {
    weather: Arc<watch::Sender<Weather>>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
    open: Arc<AtomicUsize>,
    closed: CancellationToken,
}

async fn accept(listener: TcpListener, target: SocketAddr, relay: Relay) {
    while let Some(Ok((near, _))) = relay.closed.run_until_cancelled(listener.accept()).await {
        spawn(carry(near, target, relay.clone()));
    }
}

async fn carry(near: TcpStream, target: SocketAddr, relay: Relay) {
    let Ok(far) = TcpStream::connect(target).await else { return reset(&near) };
    // A link without delay of its own must not add Nagle's.
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let cut = relay.cut.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    relay.open.fetch_add(1, Ordering::Relaxed);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let up = direction(near_read, far_write, &relay.weather);
    let down = direction(far_read, near_write, &relay.weather);
    // When cut, the halves go with the futures: the sockets close with data unread, which resets them.
    cut.run_until_cancelled(async { tokio::join!(up, down) }).await;
    relay.open.fetch_sub(1, Ordering::Relaxed);
}

/// Carries one direction until its end of file, a failure or a cut; half-close is kept.
async fn direction(from: OwnedReadHalf, to: OwnedWriteHalf, weather: &watch::Sender<Weather>) {
    let (queue, delayed) = mpsc::channel(IN_FLIGHT);
    tokio::join!(take(from, queue, weather), give(to, delayed, weather));
}

async fn take(mut from: OwnedReadHalf, queue: mpsc::Sender<(Instant, Bytes)>, weather: &watch::Sender<Weather>) {
    let mut count = 0_u32;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let now = *weather.borrow();
        count = count.wrapping_add(1);
        let stalled = now.stall_every.is_some_and(|n| count.is_multiple_of(n.max(1)));
        let due = Instant::now() + now.delay + if stalled { now.stall } else { Duration::ZERO };
        if queue.send((due, buffer.split().freeze())).await.is_err() {
            return;
        }
    }
}

async fn give(mut to: OwnedWriteHalf, mut delayed: mpsc::Receiver<(Instant, Bytes)>, weather: &watch::Sender<Weather>) {
    let mut changes = weather.subscribe();
    while let Some((due, chunk)) = delayed.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        if changes.wait_for(|weather| !weather.silent).await.is_err() || to.write_all(&chunk).await.is_err() {
            return;
        }
    }
    if changes.wait_for(|weather| !weather.silent).await.is_ok() {
        // The peer may be gone already; then there is nothing left to tell it.
        drop(to.shutdown().await);
    }
}

fn reset(socket: &TcpStream) {
    // Only a hint for the test's clarity: without it the close is a FIN.
    drop(socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}

#[expect(clippy::disallowed_methods, reason = "a link lives outside of the process that is under test")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                spawn(async move {
                    let (mut read, mut write) = socket.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn delays_silences_and_cuts() {
        let link = Link::to(echo().await).await.unwrap();
        link.set_round_trip(Duration::from_millis(40));
        let mut socket = TcpStream::connect(link.address()).await.unwrap();
        let start = Instant::now();
        let mut answer = [0; 4];
        socket.write_all(b"ping").await.unwrap();
        socket.read_exact(&mut answer).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(40));

        link.fall_silent();
        socket.write_all(b"ping").await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(100), socket.read(&mut answer)).await;
        assert!(nothing.is_err(), "a silent link tells nobody");

        link.cut();
        assert!(matches!(socket.read(&mut answer).await, Ok(0) | Err(_)));
    }
}

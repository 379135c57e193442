//! The demo as a server: a loopback listener, its connections, and a clean end.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, Upgrade},
    life,
    watch::Watches,
    world::World,
};

/// Connections at once; more wait in the listener's queue. The agent keeps a handful.
const CONNECTIONS: usize = 512;
/// How long a request head may take to arrive on an open connection.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long connections may take to end once the demo stops.
const GRACE: Duration = Duration::from_secs(2);
/// The pause after a failed accept, which tends to fail again at once (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How fast the demo lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between two stages in the life of the pod that comes and goes; above zero.
    pub step: Duration,
    /// Time between two bookmarks of a watch that asked for them; above zero.
    pub bookmarks_every: Duration,
}

impl Default for Pace {
    /// Slow enough to read along, fast enough not to be bored.
    fn default() -> Self {
        Self { step: Duration::from_secs(3), bookmarks_every: Duration::from_secs(10) }
    }
}

/// Why the demo could not begin.
#[derive(Debug, Error)]
pub enum DemoError {
    /// No port could be had on loopback.
    #[error("cannot listen on a loopback port for the demo API")]
    Listen(#[source] io::Error),
}

/// A demo API that listens but does not answer before [`Demo::run`].
#[derive(Debug)]
pub struct Demo {
    listener: TcpListener,
    addr: SocketAddr,
    pace: Pace,
}

impl Demo {
    /// Listens on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// When the operating system gives no port.
    pub async fn bind() -> Result<Self, DemoError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(DemoError::Listen)?;
        let addr = listener.local_addr().map_err(DemoError::Listen)?;
        Ok(Self { listener, addr, pace: Pace::default() })
    }

    /// Lives at another pace, for tests.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown`; then ends watches, logs and execs, and returns once all connections are closed, a few
    /// seconds later at most. Dropping the future ends everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let now = OffsetDateTime::now_utc();
        // Versions that grow over restarts too: a client of an earlier demo is told to list again, not fooled.
        let world = Arc::new(World::new(u64::try_from(now.unix_timestamp()).unwrap_or(1)));
        life::begin(&world, now);
        let stop = CancellationToken::new();
        let watches =
            Watches { world: Arc::clone(&world), bookmarks_every: self.pace.bookmarks_every, stop: stop.clone() };
        let mut connections = JoinSet::new();
        let serving = accept_all(&self.listener, Api { watches }, &stop, &mut connections);
        tokio::select! {
            () = shutdown => {}
            () = serving => {}
            () = life::go_on(world, self.pace.step) => {}
        }
        drop(self.listener);
        stop.cancel();
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tracing::debug!("connections of the demo API are cut");
        }
    }
}

enum Event {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Ended,
}

async fn accept_all(listener: &TcpListener, api: Api, stop: &CancellationToken, connections: &mut JoinSet<()>) {
    loop {
        let event = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => Event::Accepted(accepted),
            Some(_ended) = connections.join_next() => Event::Ended,
        };
        match event {
            Event::Accepted(Ok((stream, _peer))) => {
                connections.spawn(serve(stream, api.clone(), stop.clone()));
            }
            Event::Accepted(Err(error)) => {
                tracing::warn!(%error, "the demo API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Event::Ended => {}
        }
    }
}

async fn serve(stream: TcpStream, api: Api, stop: CancellationToken) {
    // Small answers should not wait for more; a failure to set this costs time, not correctness.
    drop(stream.set_nodelay(true));
    let upgrade = Upgrade::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (api, upgrade) = (api.clone(), upgrade.clone());
        async move { Ok::<_, Infallible>(api.handle(request, &upgrade).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).half_close(false);
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the demo API broke off");
    }
    if let Some(session) = upgrade.take() {
        tokio::select! {
            () = session.run() => {}
            () = stop.cancelled() => {}
        }
    }
}

//! The cluster `east` with a session of each dialect, a table, and services that do what a test says.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use moorline_access::{Policy, StaticTokens};
use moorline_ca::{Authority, SubjectName};
use moorline_mtls::{ClientStream, HttpsConnector, Roots};
use moorline_mux::{Config, Handle, Role, Stream};
use moorline_process::{Registry, Shutdown, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    audit::{
        Mode,
        tests::{Book, config},
    },
    clock,
    config::{GatewayConfig, ServicesConfig},
    enrolment::requests,
    front::{
        guardian::places::Places,
        line::Line,
        metrics::Metrics,
        pool::{Pool, PoolContext},
        tests::{house::Parts, state},
    },
    services::{Services, catalog, serve_guardian},
    state::State,
};

/// How long anything may take before a test fails.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

const DAY: Duration = Duration::from_secs(86_400);

pub(super) struct Rig {
    pub(super) state: Arc<State>,
    /// Opens streams as Guardian does.
    pub(super) guardian: Handle,
    /// Opens streams as our own agent does.
    pub(super) agent: Handle,
    pub(super) book: Book,
    pub(super) shutdown: Shutdown,
    pub(super) metrics: Registry,
    authority: Authority,
    dir: tempfile::TempDir,
}

/// What a test may set.
pub(super) struct Settings {
    pub(super) services: ServicesConfig,
    pub(super) gateway: GatewayConfig,
    pub(super) audit: Mode,
}

impl Rig {
    pub(super) fn new(table: &str) -> Self {
        Self::with(table, |_| {})
    }

    /// A rig with this table, in which `CERT`, `KEY` and `CA` stand for files: a certificate for `logs.test`.
    pub(super) fn with(table: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::generate("test", clock::now(), DAY).unwrap();
        let names = [SubjectName::Dns("logs.test".to_owned()), SubjectName::Dns("localhost".to_owned())];
        let issued = authority.issue_server(&names, clock::now(), DAY).unwrap();
        std::fs::write(dir.path().join("tls.crt"), &issued.certificate_pem).unwrap();
        std::fs::write(dir.path().join("tls.key"), issued.key_pem.as_bytes()).unwrap();
        std::fs::write(dir.path().join("ca.crt"), authority.certificate_pem()).unwrap();
        let mut settings = Settings {
            services: ServicesConfig {
                file: Some(dir.path().join("services.yaml")),
                max_streams: 1000,
                max_connections: 4096,
                rate: 1000,
                dial_timeout: Duration::from_secs(10),
            },
            gateway: state::gateway(),
            audit: Mode::Batch,
        };
        change(&mut settings);
        let metrics = Registry::new("test", "0");
        let services = Services::new(settings.services, catalog::Catalog::default(), &metrics);
        let tasks = Tasks::new(&Registry::new("test", "0"));
        let book = Book::new(config(settings.audit, 10_000), None);
        let pools = PoolContext {
            tasks: tasks.clone(),
            metrics: Arc::new(Metrics::new(&Registry::new("test", "0"))),
            places: Places::within(1 << 20),
        };
        let (handle, agent, incoming) = session(&tasks);
        let (_other, guardian, raw) = session(&tasks);
        let pool = Pool::new(handle.clone(), pools.clone());
        let parts = Parts {
            policy: Policy::parse("").unwrap(),
            tokens: StaticTokens::parse("").unwrap(),
            gateway: settings.gateway,
            audit: Some(Arc::clone(&book.audit)),
            pools,
            services,
            tasks: tasks.clone(),
            shutdown: Shutdown::new(),
        };
        let (state, shutdown) = state::build(parts, handle, Line::Moorline(pool));
        let session = Arc::clone(state.registry.sessions().first().unwrap());
        let cluster = state.registry.by_name(&session.about().cluster).unwrap();
        let (one, other) = ((Arc::clone(&cluster), Arc::clone(&session)), (cluster, session));
        tasks.spawn("agent-requests", requests::serve(Arc::clone(&state), one.0, one.1, incoming));
        tasks.spawn("guardian", serve_guardian(Arc::clone(&state), other.0, other.1, raw));
        let rig = Self { state, guardian, agent, book, shutdown, metrics, authority, dir };
        rig.offer(table);
        rig
    }

    /// Offers the services of another table.
    pub(super) fn offer(&self, table: &str) {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let text = format!("apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\nservices:\n{table}");
        let text =
            text.replace("CERT", &file("tls.crt")).replace("KEY", &file("tls.key")).replace("CA", &file("ca.crt"));
        std::fs::write(file("services.yaml"), text).unwrap();
        let read = catalog::load(&self.dir.path().join("services.yaml"));
        self.state.services.offer(read.unwrap_or_else(|problems| panic!("{problems}")).value);
    }

    /// A stream as Guardian opens one.
    pub(super) async fn stream(&self) -> Stream {
        self.guardian.open().await.unwrap()
    }

    /// What a program believes that knows the rig's authority.
    pub(super) fn program(&self, alpn: &'static [&'static [u8]]) -> HttpsConnector {
        HttpsConnector::new(Roots::from_pem(self.authority.certificate_pem().as_bytes()).unwrap(), None, alpn)
    }

    /// TLS from a program in the cluster to whoever answers to this name.
    pub(super) async fn tls(
        &self,
        name: &str,
        alpn: &'static [&'static [u8]],
    ) -> Result<ClientStream<Stream>, moorline_mtls::HandshakeError> {
        self.program(alpn).connect(self.stream().await, name, LIMIT).await
    }

    /// A service that speaks TLS with the rig's certificate.
    pub(super) fn acceptor(&self) -> moorline_mtls::GatewayAcceptor {
        let read = |name: &str| std::fs::read(self.dir.path().join(name)).unwrap();
        let keys = moorline_mtls::KeyPair::from_pem(&read("tls.crt"), &read("tls.key")).unwrap();
        moorline_mtls::GatewayAcceptor::new(keys, None).unwrap()
    }

    /// The value of a metric, 0 where it is not there.
    pub(super) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits for the value of a metric.
    pub(super) async fn metric_is(&self, name: &str, value: u64) {
        until(&format!("{name} is {value}"), || self.metric(name) == value).await;
    }
}

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn session(tasks: &Tasks) -> (Handle, Handle, moorline_mux::Incoming) {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let (handle, incoming, driver) = moorline_mux::session(ours, Config::new(Role::Server));
    tasks.spawn("server-session", driver);
    let (opener, _none, driver) = moorline_mux::session(theirs, Config::new(Role::Client));
    tasks.spawn("agent-session", driver);
    (handle, opener, incoming)
}

/// A service on loopback that has accepted nobody yet.
pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A service that gives back what it gets, each direction to its own end.
pub(super) async fn echo() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
                drop(write.shutdown().await);
            });
        }
    });
    address
}

/// Reads to the end.
pub(super) async fn rest(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    tokio::time::timeout(LIMIT, io.read_to_end(&mut all)).await.expect("an end")?;
    Ok(all)
}

/// The next connection to a service.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    tokio::time::timeout(LIMIT, listener.accept()).await.expect("a connection").unwrap().0
}

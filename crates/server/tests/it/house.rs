//! A server in a directory of its own, on ports of its own.

use std::{path::Path, time::Duration};

use moorline_ca::Authority;
use moorline_process::shutdown::Outcome;
use moorline_server::{App, Config, RawConfig, bootstrap::StateDir};
use moorline_testkit::{eventually, logs::Logs};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::user::User;

/// How long anything may take in these tests before they fail, on a machine that has much else to do.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The heartbeat interval of these tests: found dead after 1.5 s.
pub(crate) const BEAT: Duration = Duration::from_millis(500);

/// A running server.
pub(crate) struct House {
    pub(crate) state: StateDir,
    pub(crate) tunnel: std::net::SocketAddr,
    pub(crate) gateway: std::net::SocketAddr,
    pub(crate) admin: std::net::SocketAddr,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Outcome>,
}

impl House {
    /// A server with the defaults of these tests.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server with other settings.
    pub(crate) async fn start_with(change: impl FnOnce(&mut RawConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut raw = raw(dir.path());
        change(&mut raw);
        let app = App::build(Config::resolve(raw).unwrap()).await.unwrap();
        let (tunnel, gateway, admin) = (app.tunnel_addr(), app.gateway_addr(), app.admin_addr());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async move { drop(stopped.await) }));
        Self { state: StateDir::new(dir.path()), tunnel, gateway, admin, dir, stop: Some(stop), running }
    }

    /// The admin of the first start.
    pub(crate) fn user(&self) -> User {
        User::new(self)
    }

    /// The tunnel's authority, to sign what the server would not.
    pub(crate) fn tunnel_authority(&self) -> Authority {
        let read = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap();
        Authority::from_pem(&read("tunnel-ca.crt"), &read("tunnel-ca.key")).unwrap()
    }

    /// What `/metrics` shows.
    pub(crate) async fn metrics(&self) -> String {
        crate::user::plain_get(self.admin, "/metrics").await
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            assert_eq!(stop.send(()), Ok(()), "it ended by itself");
        }
    }

    /// Waits for the end.
    pub(crate) async fn ended(mut self) -> Outcome {
        self.stop();
        tokio::time::timeout(LIMIT, self.running).await.expect("the server ends").unwrap()
    }
}

/// Everything on loopback and quick.
pub(crate) fn raw(dir: &Path) -> RawConfig {
    let any = || Some("127.0.0.1:0".to_owned());
    RawConfig {
        state_dir: Some(dir.to_owned()),
        tunnel_listen: any(),
        gateway_listen: any(),
        admin_listen: any(),
        heartbeat_interval: Some(format!("{}ms", BEAT.as_millis())),
        probe_timeout: Some("2s".to_owned()),
        hello_timeout: Some("2s".to_owned()),
        shutdown_notice: Some("0".to_owned()),
        drain_grace: Some("10s".to_owned()),
        ..RawConfig::default()
    }
}

/// Waits until some log line holds all of `parts`.
pub(crate) async fn logs_tell(logs: &Logs, parts: &[&str]) {
    let told = eventually(LIMIT, async || logs.contain(parts).then_some(())).await;
    assert!(told.is_ok(), "no log line with {parts:?}");
}

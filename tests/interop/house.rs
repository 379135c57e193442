//! A whole server with Guardians, which the stand-in plays, in front of scripted kube-apiservers.

use std::path::Path;

use moorline_server::RawConfig;
use moorline_testkit::client::{Client, LIMIT};
use moorline_testkit::eventually;
use moorline_testkit::guardian::{self, Settings, StandIn};
use moorline_testkit::house::Server;
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;

/// A server, a kube-apiserver, and a user who may do everything.
pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) upstream: Upstream,
    pub(crate) user: Client,
    _logs: Logs,
}

/// One cluster's Guardian and its files.
pub(crate) struct Guardian {
    pub(crate) stand_in: StandIn,
    pub(crate) settings: Settings,
    files: tempfile::TempDir,
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with beats so rare that no session is lost because the machine is busy: for tests that count sessions.
    pub(crate) async fn patient(change: impl FnOnce(&mut RawConfig)) -> Self {
        Self::start_with(|raw| {
            raw.heartbeat_interval = Some("2s".to_owned());
            change(raw);
        })
        .await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut RawConfig)) -> Self {
        let logs = Logs::capture();
        let server = Server::start_with(change).await.unwrap();
        let upstream = Upstream::start().await.unwrap();
        let user = server.admin_client().unwrap();
        Self { server, upstream, user, _logs: logs }
    }

    /// Registers a cluster and runs its Guardian until requests get through; `None` without Go.
    pub(crate) async fn guardian(&self, name: &str, change: impl FnOnce(&mut Settings)) -> Option<Guardian> {
        let files = tempfile::tempdir().unwrap();
        guardian::enrol(&self.user, name, files.path()).await.unwrap();
        let guardian = self.run(files, change).await?;
        guardian::connected(&self.user, name).await.unwrap();
        Some(guardian)
    }

    /// Runs a Guardian with these files.
    pub(crate) async fn run(&self, files: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Option<Guardian> {
        let mut settings = Settings::new(self.server.tunnel, files.path(), &self.upstream.url());
        change(&mut settings);
        let stand_in = StandIn::start_or_skip(&settings).await.unwrap()?;
        Some(Guardian { stand_in, settings, files })
    }

    /// Waits until the value of a metric is what it is to be.
    pub(crate) async fn metric_is(&self, name: &str, labels: &[&str], wanted: impl Fn(f64) -> bool) {
        let mut last = None;
        let is =
            eventually(LIMIT, || async { self.server.metric(name, labels).await.ok().filter(|value| wanted(*value)) })
                .await;
        if is.is_err() {
            last = self.server.metric(name, labels).await.ok();
        }
        assert!(is.is_ok(), "{name} {labels:?} is {last:?}");
    }

    /// Connections that the tunnel door refused so far.
    pub(crate) async fn refusals(&self) -> f64 {
        self.server.metric("moorline_tunnel_refused_total", &[]).await.unwrap()
    }

    /// Tasks by name that are there, but for those that come and go by themselves.
    pub(crate) async fn tasks(&self) -> Vec<String> {
        let metrics = self.server.metrics().await.unwrap();
        let lines = metrics.lines().filter(|line| line.starts_with("moorline_tasks{") && !line.ends_with(" 0"));
        let mut tasks: Vec<String> = lines.map(str::to_owned).collect();
        tasks.sort();
        tasks
    }
}

impl Guardian {
    pub(crate) fn files(&self) -> &Path {
        self.files.path()
    }

    /// Another one of the same cluster, as after a restart. The one before is killed if it still runs.
    pub(crate) async fn restart(&mut self) {
        self.stand_in.signal(guardian::Signal::Kill).unwrap_or_default();
        self.stand_in = StandIn::start_or_skip(&self.settings).await.unwrap().unwrap();
    }
}

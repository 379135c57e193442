//! A server and agents that are real processes; users and kube-apiservers are the test's own.

use std::{net::SocketAddr, path::Path, process::Command};

use http::{Method, StatusCode};
use moorline_api::{CreatedCluster, ManagedCluster, paths};
use moorline_server::bootstrap::StateDir;
use moorline_testkit::{
    client::{Client, LIMIT, full},
    eventually,
    house::{metric, write_enrolment},
    upstream::Upstream,
};

use super::program::{Program, moorline};

/// A beat of these houses: silence is found after three.
pub(crate) const BEAT: &str = "500ms";

/// A beat of which a busy machine never misses three: for tests in which no session may be lost.
pub(crate) const RARE: [&str; 2] = ["--heartbeat-interval", "2s"];

pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) gateway: SocketAddr,
    pub(crate) tunnel: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) struct Agent {
    pub(crate) program: Program,
    pub(crate) admin: SocketAddr,
    _files: tempfile::TempDir,
}

/// The flags of a server on free ports of loopback, with these instead or besides.
pub(crate) fn server_flags(directory: &Path, more: &[&str]) -> Vec<String> {
    let any = "127.0.0.1:0";
    let usual = [
        ("--heartbeat-interval", BEAT),
        ("--probe-timeout", "500ms"),
        ("--shutdown-notice", "0"),
        ("--drain-grace", "20s"),
        ("--gateway-listen", any),
        ("--tunnel-listen", any),
        ("--admin-listen", any),
    ];
    let mut flags = vec!["server".to_owned(), "--state-dir".to_owned(), directory.display().to_string()];
    for (flag, value) in usual.into_iter().filter(|(flag, _)| !more.contains(flag)) {
        flags.extend([flag.to_owned(), value.to_owned()]);
    }
    flags.extend(more.iter().map(|&text| text.to_owned()));
    flags
}

/// The same command in a shell that has set limits for it first.
pub(crate) fn limited(limits: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().args(["-c", &format!("{limits} && exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[]).await
    }

    pub(crate) async fn start_in(directory: tempfile::TempDir, more: &[&str]) -> Self {
        let command = moorline(&server_flags(directory.path(), more));
        Self::run(directory, command).await
    }

    /// Runs this command, which is to become a server with this state.
    pub(crate) async fn run(directory: tempfile::TempDir, command: Command) -> Self {
        let program = Program::start(command);
        let (gateway, tunnel) = (program.address("gateway").await, program.address("tunnel").await);
        let admin = program.address("admin").await;
        Self { program, gateway, tunnel, admin, directory }
    }

    pub(crate) fn user(&self) -> Client {
        let state = StateDir::new(self.directory.path());
        let authority = std::fs::read(state.gateway_ca_certificate()).unwrap();
        Client::new(self.gateway, &authority, &state.admin_token().unwrap().unwrap()).unwrap()
    }

    pub(crate) async fn create(&self, name: &str) -> CreatedCluster {
        let user = self.user();
        let body = full(format!("{{\"name\":{name:?}}}"));
        let answer = user.ask(user.request_with(Method::POST, paths::CLUSTERS, body)).await.unwrap();
        assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    pub(crate) async fn cluster(&self, name: &str) -> ManagedCluster {
        let answer = self.user().get(&paths::cluster(&name.parse().unwrap())).await.unwrap();
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Waits until requests get through to that cluster.
    pub(crate) async fn connected(&self, name: &str) {
        let (user, path) = (self.user(), format!("/clusters/{name}/version"));
        let through = async || user.get(&path).await.ok().filter(|answer| answer.code == StatusCode::OK);
        let answer = eventually(LIMIT, through).await;
        assert!(answer.is_ok(), "{name} does not connect; the server said\n{}", self.program.said(&[]).join("\n"));
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, &[]).await
    }

    pub(crate) async fn metric_of(&self, name: &str, labels: &[&str]) -> f64 {
        metric(self.admin, name, labels).await.unwrap()
    }
}

impl Agent {
    /// An agent of `created` that dials `tunnel`.
    pub(crate) async fn start(created: &CreatedCluster, tunnel: SocketAddr, upstream: &Upstream) -> Self {
        Self::start_with(created, tunnel, upstream, |command| command).await
    }

    /// The same, its command changed first.
    pub(crate) async fn start_with(
        created: &CreatedCluster,
        tunnel: impl std::fmt::Display,
        upstream: &Upstream,
        change: impl FnOnce(Command) -> Command,
    ) -> Self {
        let files = tempfile::tempdir().unwrap();
        write_enrolment(created, files.path()).unwrap();
        let mut command = moorline(&["agent", "--admin-addr", "127.0.0.1:0", "--drain-grace", "20s"]);
        command.args(["--management-cluster-addr", &tunnel.to_string(), "--kube-apiserver", &upstream.url()]);
        command.arg("--cert-dir").arg(files.path()).arg("--kube-token-file").arg(files.path().join("token"));
        let program = Program::start(change(command));
        let admin = program.address("admin").await;
        Self { program, admin, _files: files }
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, &[]).await
    }

    pub(crate) async fn metric_of(&self, name: &str, labels: &[&str]) -> f64 {
        metric(self.admin, name, labels).await.unwrap()
    }
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waited = eventually(LIMIT, async || holds().await.then_some(())).await;
    assert!(waited.is_ok(), "still not so: {what}");
}

//! A whole house in one process: a server, agents and scripted kube-apiservers over real loopback sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use moorline_api::{CreatedCluster, ManagedCluster, paths};
use moorline_process::shutdown::Outcome;
use moorline_server::bootstrap::StateDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Client, LIMIT, full};
use crate::eventually;

/// The heartbeat interval of a test's house: a silent peer is found after three of them. On a busy machine a process may
/// well be silent for half a second without being dead.
pub const BEAT: Duration = Duration::from_millis(500);

/// A running server in a directory of its own, on ports of its own.
pub struct Server {
    /// Where users connect.
    pub gateway: SocketAddr,
    /// Where agents connect.
    pub tunnel: SocketAddr,
    /// Probes and metrics.
    pub admin: SocketAddr,
    directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Outcome>,
}

impl Server {
    /// A server with a test's defaults.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn start() -> Result<Self> {
        Self::start_with(|_| {}).await
    }

    /// A server with other settings.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn start_with(change: impl FnOnce(&mut moorline_server::RawConfig)) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, change).await
    }

    /// A server in the directory of an earlier one: a restart.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn start_in(
        directory: tempfile::TempDir,
        change: impl FnOnce(&mut moorline_server::RawConfig),
    ) -> Result<Self> {
        let any = || Some("127.0.0.1:0".to_owned());
        let mut raw = moorline_server::RawConfig {
            state_dir: Some(directory.path().to_owned()),
            tunnel_listen: any(),
            gateway_listen: any(),
            admin_listen: any(),
            heartbeat_interval: Some(format!("{}ms", BEAT.as_millis())),
            probe_timeout: Some("500ms".to_owned()),
            check_interval: Some("1s".to_owned()),
            hello_timeout: Some("2s".to_owned()),
            shutdown_notice: Some("0s".to_owned()),
            drain_grace: Some("10s".to_owned()),
            ..moorline_server::RawConfig::default()
        };
        change(&mut raw);
        let app = moorline_server::App::build(moorline_server::Config::resolve(raw)?).await?;
        let (gateway, tunnel, admin) = (app.gateway_addr(), app.tunnel_addr(), app.admin_addr());
        let (stop, stopped) = oneshot::channel();
        let running = spawn(app.run(async move { drop(stopped.await) }));
        Ok(Self { gateway, tunnel, admin, directory, stop: Some(stop), running })
    }

    /// Its state directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its administrator.
    ///
    /// # Errors
    /// When the state directory is not as the server made it.
    pub fn admin_client(&self) -> Result<Client> {
        let state = StateDir::new(self.directory.path());
        let token = state.admin_token()?.context("no admin token")?;
        Client::new(self.gateway, &std::fs::read(state.gateway_ca_certificate())?, &token)
    }

    /// Registers a cluster; the answer holds the files of its agent.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create(&self, name: &str) -> Result<CreatedCluster> {
        let client = self.admin_client()?;
        let body = full(format!("{{\"name\":{name:?}}}"));
        let answer = client.ask(client.request_with(Method::POST, paths::CLUSTERS, body)).await?;
        ensure!(answer.code == StatusCode::CREATED, "{}", answer.body);
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// A cluster as the management API shows it.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn cluster(&self, name: &str) -> Result<ManagedCluster> {
        let answer = self.admin_client()?.get(&paths::cluster(&name.parse()?)).await?;
        ensure!(answer.code == StatusCode::OK, "{}", answer.body);
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// Registers a cluster and runs an agent for it, in front of `upstream`; waits until requests get through.
    ///
    /// # Errors
    /// When it does not come up within [`LIMIT`].
    pub async fn agent(&self, name: &str, upstream: &str) -> Result<Agent> {
        let created = self.create(name).await?;
        let agent = Agent::start(&created, self.tunnel, upstream, |_| {})?;
        self.connected(name).await?;
        Ok(agent)
    }

    /// Waits until requests to that cluster get through.
    ///
    /// # Errors
    /// When they do not within [`LIMIT`].
    pub async fn connected(&self, name: &str) -> Result<()> {
        let client = self.admin_client()?;
        let path = format!("/clusters/{name}/version");
        let through = async || client.get(&path).await.ok().filter(|answer| answer.code == StatusCode::OK);
        eventually(LIMIT, through).await.with_context(|| format!("{name} does not connect"))?;
        Ok(())
    }

    /// What `/metrics` shows.
    ///
    /// # Errors
    /// When the admin door does not answer.
    pub async fn metrics(&self) -> Result<String> {
        plain_get(self.admin, "/metrics").await
    }

    /// The value of a metric, summed over its labels that hold all of `labels`.
    ///
    /// # Errors
    /// When the admin door does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        metric(self.admin, name, labels).await
    }

    /// Tells it to stop, as SIGTERM does; it drains.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has ended by itself already.
            stop.send(()).unwrap_or_default();
        }
    }

    /// Waits for its end after [`Server::stop`], and gives its directory back for the next start.
    ///
    /// # Errors
    /// When it does not end within [`LIMIT`].
    pub async fn ended(mut self) -> Result<(Outcome, tempfile::TempDir)> {
        self.stop();
        let outcome = tokio::time::timeout(LIMIT, self.running).await.context("the server does not end")??;
        Ok((outcome, self.directory))
    }
}

/// A running agent with its files.
pub struct Agent {
    /// Probes and metrics.
    pub admin: SocketAddr,
    services: Vec<(String, SocketAddr)>,
    files: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), moorline_agent::RunError>>,
}

impl Agent {
    /// Runs an agent with the files of `created` that dials `tunnel` and serves from `upstream` (a URL).
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn start(
        created: &CreatedCluster,
        tunnel: SocketAddr,
        upstream: &str,
        change: impl FnOnce(&mut moorline_agent::RawConfig),
    ) -> Result<Self> {
        let files = tempfile::tempdir()?;
        write_enrolment(created, files.path())?;
        let mut raw = raw_agent(files.path(), tunnel, upstream);
        change(&mut raw);
        // Nothing of this machine's environment, such as its proxy, is a test's.
        let surroundings = moorline_agent::Surroundings {
            variable: &|_| None,
            service_account: "/nowhere".into(),
            now: std::time::SystemTime::now().into(),
        };
        let app = moorline_agent::App::build(moorline_agent::Config::resolve(&raw, &surroundings)?)?;
        let (admin, services) = (app.admin_addr()?, app.service_addrs());
        let (stop, stopped) = oneshot::channel();
        let running = spawn(app.run(async move { drop(stopped.await) }));
        Ok(Self { admin, services, files, stop: Some(stop), running })
    }

    /// Where programs find the services of the management cluster that it offers, in the order of its flags.
    #[must_use]
    pub fn services(&self) -> &[(String, SocketAddr)] {
        &self.services
    }

    /// Where its certificate is.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The value of a metric, summed over its labels that hold all of `labels`.
    ///
    /// # Errors
    /// When the admin door does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        metric(self.admin, name, labels).await
    }

    /// Tells it to stop, as SIGTERM does; it drains.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that it has ended by itself already.
            stop.send(()).unwrap_or_default();
        }
    }

    /// Waits for its end after [`Agent::stop`].
    ///
    /// # Errors
    /// When it does not end within [`LIMIT`], or failed.
    pub async fn ended(mut self) -> Result<()> {
        self.stop();
        Ok(tokio::time::timeout(LIMIT, self.running).await.context("the agent does not end")???)
    }
}

/// A test's agent: files in `directory`, everything on loopback.
#[must_use]
pub fn raw_agent(directory: &Path, tunnel: SocketAddr, upstream: &str) -> moorline_agent::RawConfig {
    moorline_agent::RawConfig {
        management_cluster_addr: Some(tunnel.to_string()),
        cert_dir: Some(directory.to_owned()),
        kube_apiserver: Some(upstream.to_owned()),
        kube_token_file: Some(directory.join("token")),
        admin_addr: Some("127.0.0.1:0".to_owned()),
        drain_grace: Some("10s".to_owned()),
        ..moorline_agent::RawConfig::default()
    }
}

/// Writes the files of an agent, and a token that it presents upstream.
///
/// # Errors
/// When they cannot be written.
pub fn write_enrolment(created: &CreatedCluster, directory: &Path) -> Result<()> {
    let enrolment = serde_json::to_value(&created.enrolment)?;
    for name in ["management-cluster.crt", "managed-cluster.crt", "managed-cluster.key"] {
        let text = enrolment.get(name).and_then(serde_json::Value::as_str).with_context(|| name.to_owned())?;
        moorline_process::write_private(&directory.join(name), text.as_bytes())?;
    }
    moorline_process::write_private(&directory.join("token"), b"the-agent's-own-token")?;
    Ok(())
}

/// A plain HTTP request to an admin door; the whole answer as text.
///
/// # Errors
/// When there is no answer within [`LIMIT`].
pub async fn plain_get(address: SocketAddr, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    tokio::time::timeout(LIMIT, socket.read_to_string(&mut text)).await.context("no answer")??;
    Ok(text)
}

/// The value of a metric behind an admin door, summed over its labels that hold all of `labels`.
///
/// # Errors
/// When there is no answer within [`LIMIT`].
pub async fn metric(admin: SocketAddr, name: &str, labels: &[&str]) -> Result<f64> {
    let text = plain_get(admin, "/metrics").await?;
    let lines = text
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label)));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

#[expect(clippy::disallowed_methods, reason = "each program of a house has tasks of its own, this is its main")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

//! One control plane: an etcd and a kube-apiserver of its own on loopback.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{Method, StatusCode};
use rand::RngExt as _;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::time::{Instant, interval};

use super::certificates::Certificates;
use super::program::Program;
use super::{ApiClient, ClientCertificate, Credential, Kubectl, Tools, write_kubeconfig};

/// How long a kube-apiserver may take until it is ready, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// How often it is asked whether it is.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Metadata is enough to see who did what as whom. The calls of the control plane to itself are left out.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users: ['system:apiserver']
  - level: Metadata
";

/// How a control plane differs from another.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A word for directory and log names; `cluster` when empty.
    pub name: String,
    /// More flags for kube-apiserver.
    pub api_server_flags: Vec<String>,
}

/// A running control plane. It ends with this value, or with this process, whichever is first.
pub struct ControlPlane {
    tools: Tools,
    flags: Vec<String>,
    certificates: Certificates,
    admin_token: String,
    client: ApiClient,
    // Bound but never listening: nobody else is given this port as long as we live.
    _reserved: Socket,
    port: u16,
    // Programs end before the directory goes: fields drop in this order.
    api_server: Mutex<Option<Program>>,
    etcd: Mutex<Program>,
    directory: TempDir,
}

impl ControlPlane {
    /// Starts a control plane and waits until it is ready.
    pub async fn start(tools: &Tools, options: Options) -> Result<Self> {
        let name = if options.name.is_empty() { "cluster" } else { &options.name };
        let directory = tempfile::Builder::new().prefix(&format!("moorline-{name}-")).tempdir()?;
        let certificates = Certificates::generate()?;
        let admin_token = format!("admin-{:032x}", rand::rng().random::<u128>());
        write_files(directory.path(), &certificates, &admin_token)?;

        let (reserved, port) = reserve_port()?;
        let client = ApiClient::new(port, admin_token.clone(), &certificates.authority_pem())?;
        let etcd = start_etcd(tools, directory.path())?;
        let plane = Self {
            tools: tools.clone(),
            flags: options.api_server_flags,
            certificates,
            admin_token,
            client,
            _reserved: reserved,
            port,
            api_server: Mutex::new(None),
            etcd: Mutex::new(etcd),
            directory,
        };
        plane.start_api_server().await?;
        Ok(plane)
    }

    /// Starts the kube-apiserver (again, on the same port) and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        let program = Program::start(
            "kube-apiserver",
            &self.tools.kube_apiserver,
            self.api_server_flags(),
            self.directory.path(),
            None,
        )?;
        *lock(&self.api_server) = Some(program);
        let deadline = Instant::now() + READY_WITHIN;
        let mut ticks = interval(ASK_EVERY);
        loop {
            ticks.tick().await;
            let answer = tokio::time::timeout(READY_WITHIN, self.client.call(Method::GET, "/readyz", None)).await;
            if let Ok(Ok(answer)) = &answer
                && answer.status == StatusCode::OK
            {
                return Ok(());
            }
            lock(&self.etcd).check()?;
            let mut running = lock(&self.api_server);
            let Some(program) = running.as_mut() else { bail!("stopped while it started") };
            program.check()?;
            if Instant::now() >= deadline {
                bail!(
                    "kube-apiserver was not ready within {READY_WITHIN:?} ({answer:?}); its log ends:\n{}",
                    program.quote()
                );
            }
        }
    }

    /// Kills the kube-apiserver; its port stays reserved and refuses connections.
    pub fn stop_api_server(&self) {
        drop(lock(&self.api_server).take());
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Where the kube-apiserver listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The certificate of the authority that signed the kube-apiserver's.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.certificates.authority_pem()
    }

    /// The token of a user in `system:masters`, for setting scenes.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A client with the admin token.
    #[must_use]
    pub fn api(&self) -> &ApiClient {
        &self.client
    }

    /// A directory of this control plane's own, gone with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A kubeconfig with the admin token, straight to this kube-apiserver.
    pub fn admin_kubeconfig(&self) -> Result<PathBuf> {
        self.kubeconfig("admin", &Credential::Token(&self.admin_token))
    }

    /// A kubeconfig with this credential, straight to this kube-apiserver.
    pub fn kubeconfig(&self, name: &str, credential: &Credential<'_>) -> Result<PathBuf> {
        let path = self.directory.path().join(format!("{name}.kubeconfig"));
        write_kubeconfig(&path, &self.url(), &self.ca_pem(), credential)?;
        Ok(path)
    }

    /// A client certificate that this kube-apiserver takes for that user.
    pub fn client_certificate(&self, user: &str, group: &str) -> Result<ClientCertificate> {
        self.certificates.client(user, group)
    }

    /// A kubectl as the admin, straight to this kube-apiserver.
    pub fn kubectl(&self, version: Kubectl) -> Result<Command> {
        Ok(self.tools.kubectl(version, &self.admin_kubeconfig()?))
    }

    /// The programs that this control plane was started with.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Every event of the audit log so far whose line contains `needle`, which spares parsing the others.
    ///
    /// A line that is still being written is left out.
    pub fn audit_events(&self, needle: &str) -> Result<Vec<Value>> {
        let log = fs::read_to_string(self.directory.path().join("audit.log"))?;
        let lines = log.lines().filter(|line| line.contains(needle));
        Ok(lines.filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The end of the kube-apiserver's log, to print when a test fails.
    #[must_use]
    pub fn api_server_log(&self) -> String {
        lock(&self.api_server).as_ref().map_or_else(String::new, Program::quote)
    }

    fn api_server_flags(&self) -> Vec<String> {
        let at = |file: &str| self.directory.path().join(file).display().to_string();
        let mut flags = vec![
            format!("--etcd-servers=unix://{}", at("etcd-client:0")),
            format!("--cert-dir={}", at("")),
            format!("--tls-cert-file={}", at("server.crt")),
            format!("--tls-private-key-file={}", at("server.key")),
            format!("--client-ca-file={}", at("ca.crt")),
            format!("--token-auth-file={}", at("tokens.csv")),
            format!("--service-account-key-file={}", at("service-account.pub")),
            format!("--service-account-signing-key-file={}", at("service-account.key")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--audit-policy-file={}", at("audit-policy.yaml")),
            format!("--audit-log-path={}", at("audit.log")),
            format!("--secure-port={}", self.port),
            // The port is ours already, by a socket that does not listen.
            "--permit-port-sharing=true".into(),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            // The endpoints of the `kubernetes` service may not be on loopback.
            "--endpoint-reconciler-type=none".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
            "--authorization-mode=RBAC".into(),
            "--allow-privileged=true".into(),
            // It needs the controllers that make default service accounts.
            "--disable-admission-plugins=ServiceAccount".into(),
        ];
        flags.extend(self.flags.iter().cloned());
        flags
    }
}

fn write_files(directory: &Path, certificates: &Certificates, admin_token: &str) -> Result<()> {
    let files = [
        ("ca.crt", certificates.authority_pem()),
        ("server.crt", certificates.server.clone()),
        ("server.key", certificates.server_key.clone()),
        ("service-account.key", certificates.service_account_key.clone()),
        ("service-account.pub", certificates.service_account_public_key.clone()),
        ("tokens.csv", format!("{admin_token},test-admin,test-admin,\"system:masters\"\n")),
        ("audit-policy.yaml", AUDIT_POLICY.to_owned()),
    ];
    for (name, content) in files {
        fs::write(directory.join(name), content).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

/// etcd on sockets in the file system: no ports to choose.
fn start_etcd(tools: &Tools, directory: &Path) -> Result<Program> {
    let flags = [
        "--name=test",
        "--data-dir=etcd-data",
        "--listen-client-urls=unix://etcd-client:0",
        "--advertise-client-urls=unix://etcd-client:0",
        "--listen-peer-urls=unix://etcd-peer:0",
        "--initial-advertise-peer-urls=unix://etcd-peer:0",
        "--initial-cluster=test=unix://etcd-peer:0",
        "--logger=zap",
        "--log-outputs=stderr",
    ];
    Program::start("etcd", &tools.etcd, flags, directory, Some(directory))
}

fn reserve_port() -> Result<(Socket, u16)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("a socket")?;
    socket.set_reuse_port(true).context("share a port")?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).context("reserve a port")?;
    let port = socket.local_addr()?.as_socket().context("an address")?.port();
    Ok((socket, port))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! What the benches share: medians of rounds taken in turns, and server and agent as processes of their own.
//!
//! A bench that measures memory runs itself again as the server or as the agent, so that what is measured is one process
//! with the allocator of the real programs and nothing else in it.
#![allow(dead_code, unused_imports, reason = "each bench uses its part")]

mod origin;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode};
use moorline_api::{CreatedCluster, paths};
use moorline_server::bootstrap::StateDir;
use moorline_testkit::client::{Client, LIMIT, full};
use moorline_testkit::{eventually, house};

pub(crate) use origin::Origin;

pub(crate) const MIB: u64 = 1024 * 1024;

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median and the 99th percentile, in microseconds.
pub(crate) fn middle_and_late(mut took: Vec<Duration>) -> (f64, f64) {
    took.sort();
    let at = |part: usize| took.get(took.len() * part / 100).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6);
    (at(50), at(99))
}

#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// How a server is to be.
#[derive(Default)]
pub(crate) struct Wishes {
    /// Requests a second for each user.
    pub(crate) rate: Option<u32>,
    /// The table of services of the management cluster.
    pub(crate) services: Option<PathBuf>,
}

/// What stands for nothing among arguments.
const NONE: &str = "none";

/// A process of this bench's own; killed when dropped. It ends by itself when this bench is killed.
pub(crate) struct Process {
    child: Child,
    _leash: ChildStdin,
}

/// A server in a process of its own.
pub(crate) struct ServerProcess {
    pub(crate) process: Process,
    pub(crate) gateway: SocketAddr,
    pub(crate) tunnel: SocketAddr,
    pub(crate) admin: SocketAddr,
    directory: PathBuf,
}

/// If this process was started to be a server or an agent, is that until it is killed or its input ends; says whether it
/// was.
///
/// # Errors
/// When it cannot be one.
pub(crate) async fn played_a_part() -> Result<bool> {
    let arguments: Vec<_> = std::env::args().collect();
    let parts: Vec<_> = arguments.iter().map(String::as_str).collect();
    match parts.get(1..).unwrap_or_default() {
        ["be-a-server", rate, services] => {
            let server = house::Server::start_with(|raw| {
                raw.heartbeat_interval = Some("5s".to_owned());
                raw.max_sessions_per_cluster = Some(10_000);
                // One user plays all of them.
                raw.max_requests_per_cluster = Some(4000);
                raw.user_qps = rate.parse().ok();
                raw.services_file = (*services != NONE).then(|| PathBuf::from(services));
                // What is measured is not how it is limited.
                raw.service_qps = Some(1_000_000);
            })
            .await?;
            say(&format!("{} {} {} {}", server.gateway, server.tunnel, server.admin, server.directory().display()));
            return until_left().await;
        }
        ["be-an-origin"] => {
            let _upstreams = origin::play().await?;
            return until_left().await;
        }
        ["be-an-agent", tunnel, upstream, services @ ..] => {
            // By its input: arguments are for every user of the machine to see, and this has a key.
            let mut created = String::new();
            std::io::stdin().read_line(&mut created)?;
            let agent = house::Agent::start(&serde_json::from_str(&created)?, tunnel.parse()?, upstream, |raw| {
                let (http, tcp) = services.iter().partition::<Vec<_>, _>(|name| name.starts_with("http"));
                let here = |names: Vec<&&str>| names.into_iter().map(|name| format!("{name}=127.0.0.1:0")).collect();
                (raw.http_services, raw.services) = (here(http), here(tcp));
            })?;
            let offered = agent.services();
            let at = |name: &&str| Some(offered.iter().find(|(offered, _)| offered == name)?.1.to_string());
            say(&services.iter().filter_map(at).collect::<Vec<_>>().join(" "));
            return until_left().await;
        }
        _ => {}
    }
    Ok(false)
}

/// Until whoever started this process is gone.
async fn until_left() -> Result<bool> {
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    Ok(true)
}

impl Process {
    /// Starts this bench again in that part, tells it a line, and gives the line that it says when it is ready.
    fn start(arguments: &[&str], told: &str) -> Result<(Self, String)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            // Memory counted in pages of 2 MiB would be noise.
            .env("MIMALLOC_ALLOW_THP", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting this bench again")?;
        let said = child.stdout.take().context("no output")?;
        let mut leash = child.stdin.take().context("no input")?;
        writeln!(leash, "{told}")?;
        let process = Self { child, _leash: leash };
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        ensure!(!line.is_empty(), "{arguments:?} did not start");
        Ok((process, line.trim().to_owned()))
    }

    /// A line of its memory in `/proc`, in bytes: `VmRSS:`, `RssAnon:`.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn memory(&self, line: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next());
        Ok(found.context("no such line")?.parse::<u64>()? * 1024)
    }

    /// Processor time that it has used, in seconds.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn processor_time(&self) -> Result<f64> {
        /// The kernel shows hundredths of a second.
        const TICK: f64 = 0.01;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which may hold anything, user and system time are the 12th and 13th.
        let fields = stat.rsplit_once(')').context("no name")?.1.split_whitespace().skip(11).take(2);
        Ok(fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * TICK)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl ServerProcess {
    /// A server on free ports, with a state directory of its own.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(Wishes::default())
    }

    /// The same, as wished.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start_with(wishes: Wishes) -> Result<Self> {
        let rate = wishes.rate.map_or_else(|| NONE.to_owned(), |rate| rate.to_string());
        let services = wishes.services.map_or_else(|| NONE.to_owned(), |services| services.display().to_string());
        let (process, line) = Process::start(&["be-a-server", &rate, &services], "")?;
        let words: Vec<_> = line.split(' ').collect();
        let [gateway, tunnel, admin, directory] = words[..] else { anyhow::bail!("it said {line}") };
        let (gateway, tunnel, admin) = (gateway.parse()?, tunnel.parse()?, admin.parse()?);
        Ok(Self { process, gateway, tunnel, admin, directory: PathBuf::from(directory) })
    }

    /// Where it keeps its state.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its administrator.
    ///
    /// # Errors
    /// When its state directory is gone.
    pub(crate) fn user(&self) -> Result<Client> {
        let state = StateDir::new(&self.directory);
        let token = state.admin_token()?.context("no admin token")?;
        Client::new(self.gateway, &std::fs::read(state.gateway_ca_certificate())?, &token)
    }

    /// Registers a cluster.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) async fn create(&self, name: &str) -> Result<CreatedCluster> {
        let user = self.user()?;
        let body = full(format!("{{\"name\":{name:?}}}"));
        let answer = user.ask(user.request_with(Method::POST, paths::CLUSTERS, body)).await?;
        ensure!(answer.code == StatusCode::CREATED, "{}", answer.body);
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// An agent of a new cluster in a process of its own, once requests get through.
    ///
    /// # Errors
    /// When they do not.
    pub(crate) async fn agent(&self, name: &str, upstream: &str) -> Result<Process> {
        self.agent_at(self.tunnel, name, upstream).await
    }

    /// The same, by another address for the tunnel.
    ///
    /// # Errors
    /// When none gets through.
    pub(crate) async fn agent_at(&self, tunnel: SocketAddr, name: &str, upstream: &str) -> Result<Process> {
        Ok(self.agent_offering(tunnel, name, upstream, &[]).await?.0)
    }

    /// The same, and where it offers these services of the management cluster; those whose names begin with `http` it
    /// offers as HTTP.
    ///
    /// # Errors
    /// When no requests get through.
    pub(crate) async fn agent_offering(
        &self,
        tunnel: SocketAddr,
        name: &str,
        upstream: &str,
        services: &[&str],
    ) -> Result<(Process, Vec<SocketAddr>)> {
        let created = serde_json::to_string(&self.create(name).await?)?;
        let tunnel = tunnel.to_string();
        let (process, line) = Process::start(&[&["be-an-agent", &tunnel, upstream], services].concat(), &created)?;
        let (user, path) = (self.user()?, format!("/clusters/{name}/version"));
        let through = async || user.get(&path).await.ok().filter(|answer| answer.code == StatusCode::OK);
        eventually(LIMIT, through).await?;
        let addresses = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        Ok((process, addresses))
    }

    /// The value of one of its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        house::metric(self.admin, name, &[]).await
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Its owner was killed before it could; what is left would only be litter.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

//! The running parts of a quickstart: server, agent and demo API, each a tracked task, ended together.

use std::{convert::Infallible, future::Future, net::SocketAddr, path::Path, time::Duration};

use moorline_demo::Demo;
use moorline_process::{Registry, Tasks};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{super::programs::build_agent, plan::Managed};
use crate::failure::{Failure, chain};

/// What all parts together may take to end once told to: they drain for a second or two each.
const END_WITHIN: Duration = Duration::from_secs(15);
/// What running requests may take to end by themselves after Ctrl-C; a watch never does.
pub(super) const DRAIN: &str = "1s";

/// What runs.
pub(super) struct House {
    tasks: Tasks,
    stop: CancellationToken,
    ended: mpsc::Receiver<Failure>,
    ending: mpsc::Sender<Failure>,
}

impl House {
    pub(super) fn new() -> Self {
        let tasks = Tasks::new(&Registry::new("moorline-quickstart", env!("CARGO_PKG_VERSION")));
        // One place for each part.
        let (ending, ended) = mpsc::channel(3);
        Self { tasks, stop: CancellationToken::new(), ended, ending }
    }

    /// Runs the server.
    pub(super) fn serve(&self, server: moorline_server::App) {
        let stop = self.stop.clone();
        self.part("server", async move {
            let _outcome = server.run(stop.cancelled_owned()).await;
            Ok::<_, Infallible>(())
        });
    }

    /// Runs the demo API, and says where it is.
    pub(super) async fn demo(&self) -> Result<SocketAddr, Failure> {
        let demo = Demo::bind().await.map_err(|error| Failure::because("the demo API", &error))?;
        let addr = demo.addr();
        let stop = self.stop.clone();
        self.part("demo", async move {
            demo.run(stop.cancelled_owned()).await;
            Ok::<_, Infallible>(())
        });
        Ok(addr)
    }

    /// Runs the agent.
    pub(super) fn tend(&self, agent: moorline_agent::App) {
        let stop = self.stop.clone();
        self.part("agent", async move { agent.run(stop.cancelled_owned()).await });
    }

    /// Resolves when a part ended that nobody told to.
    pub(super) async fn broken(&mut self) -> Failure {
        self.ended.recv().await.unwrap_or_else(|| Failure::failed("all parts of the quickstart ended"))
    }

    /// Ends all parts and waits for them.
    pub(super) async fn end(self) -> Result<(), Failure> {
        self.stop.cancel();
        drop(self.ending);
        self.tasks.finished(END_WITHIN).await.map_err(|error| Failure::because("stopping took too long", &error))
    }

    fn part<E: std::error::Error + 'static>(
        &self,
        name: &'static str,
        run: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (ending, stop) = (self.ending.clone(), self.stop.clone());
        self.tasks.spawn(name, async move {
            let failure = match run.await {
                Ok(()) => Failure::failed(format!("the {name} ended by itself")),
                Err(error) => Failure::failed(format!("the {name} failed: {}", chain(&error))),
            };
            if !stop.is_cancelled() {
                // The receiver is gone only when the whole quickstart is.
                drop(ending.send(failure).await);
            }
        });
    }
}

/// An agent with the files in `cert_dir`, for the managed cluster.
pub(super) fn agent(
    cert_dir: &Path,
    tunnel: SocketAddr,
    managed: &Managed,
    demo: Option<SocketAddr>,
) -> Result<moorline_agent::App, Failure> {
    let mut raw = moorline_agent::RawConfig {
        management_cluster_addr: Some(tunnel.to_string()),
        cert_dir: Some(cert_dir.to_owned()),
        kube_apiserver: demo.map(|demo| format!("http://{demo}")),
        admin_addr: Some("127.0.0.1:0".to_owned()),
        drain_grace: Some(DRAIN.to_owned()),
        ..moorline_agent::RawConfig::default()
    };
    if let Managed::Real { kubeconfig, context } = managed {
        (raw.kubeconfig, raw.context) = (Some(kubeconfig.clone()), context.clone());
    }
    build_agent(&raw)
}

//! Whether the kube-apiserver can be reached, and which it is: asked again and again, told to the server at each change.
//!
//! The prober is spawned by `app`; its findings are read by the control stream, the readiness probe and the metrics. It
//! asks with the agent's own credential and as nobody else: `/readyz` and `/version` are open to every authenticated
//! caller in Kubernetes, the `kube-system` namespace is asked for once and may be refused.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use moorline_process::Latch;
use moorline_wire::AgentStatus;
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};

use crate::{
    kubernetes::{CallError, Client, READY},
    metrics::Metrics,
    serve::Chain,
};

/// Between two probes while all is well.
const STEADY: Duration = Duration::from_secs(15);

/// Between two probes while something is wrong: repair should show soon.
const WORRIED: Duration = Duration::from_secs(3);

/// How often the version is asked for: it changes with upgrades of the control plane only.
const VERSION_AGE: Duration = Duration::from_secs(300);

/// What the last probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// As the server is told.
    pub(crate) status: AgentStatus,
    /// Counts probes, so that a fresh finding can be waited for.
    pub(crate) round: u64,
}

/// Asks the kube-apiserver.
pub(crate) struct Prober {
    client: Client,
    findings: watch::Sender<Health>,
    latch: Latch,
    metrics: Arc<Metrics>,
    version: Option<(String, Instant)>,
    cluster_uid: Uid,
}

/// The uid of the `kube-system` namespace. A refusal is final: rights do not come by themselves.
enum Uid {
    NotAsked,
    Known(String),
    Refused,
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "gitVersion")]
    git_version: String,
}

#[derive(Deserialize)]
struct Namespace {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

impl Prober {
    /// Nothing is known until [`Prober::run`] has asked.
    pub(crate) fn new(client: Client, latch: Latch, metrics: Arc<Metrics>) -> (Self, watch::Receiver<Health>) {
        let unknown = AgentStatus {
            upstream_ok: false,
            upstream_reason: Some("not probed yet".to_owned()),
            kubernetes_version: None,
            cluster_uid: None,
        };
        let (findings, watched) = watch::channel(Health { status: unknown, round: 0 });
        (Self { client, findings, latch, metrics, version: None, cluster_uid: Uid::NotAsked }, watched)
    }

    /// Probes for ever. To be spawned by the caller.
    pub(crate) async fn run(mut self) {
        loop {
            let ok = self.round().await;
            tokio::time::sleep(if ok { STEADY } else { WORRIED }).await;
        }
    }

    async fn round(&mut self) -> bool {
        let ready = self.client.probe(READY).await;
        if ready.is_ok() {
            self.learn().await;
        }
        let reason = ready.err().map(|error| Chain(&error).to_string());
        let ok = reason.is_none();
        self.metrics.probed(ok);
        match &reason {
            None => self.latch.ready(),
            Some(reason) => self.latch.unready(reason.clone()),
        }
        self.publish(reason);
        ok
    }

    fn publish(&self, reason: Option<String>) {
        let status = AgentStatus {
            upstream_ok: reason.is_none(),
            upstream_reason: reason,
            kubernetes_version: self.version.as_ref().map(|(version, _)| version.clone()),
            cluster_uid: match &self.cluster_uid {
                Uid::Known(uid) => Some(uid.clone()),
                Uid::NotAsked | Uid::Refused => None,
            },
        };
        self.findings.send_modify(|health| {
            if health.status.upstream_ok != status.upstream_ok || health.round == 0 {
                match &status.upstream_reason {
                    None => tracing::info!(version = status.kubernetes_version, "the kube-apiserver answers"),
                    Some(reason) => tracing::warn!(reason, "the kube-apiserver does not answer as it should"),
                }
            }
            health.status = status;
            health.round = health.round.wrapping_add(1);
        });
    }

    /// Version and uid, best effort: a cluster that hides them still serves.
    async fn learn(&mut self) {
        if self.version.as_ref().is_none_or(|(_, asked)| asked.elapsed() >= VERSION_AGE)
            && let Some(Version { git_version }) = read(self.client.probe("/version").await)
        {
            self.version = Some((git_version, Instant::now()));
        }
        if matches!(self.cluster_uid, Uid::NotAsked) {
            let answer = self.client.probe("/api/v1/namespaces/kube-system").await;
            let refused = answer.as_ref().is_err_and(|error| error.code().is_some());
            match read::<Namespace>(answer) {
                Some(namespace) => self.cluster_uid = Uid::Known(namespace.metadata.uid),
                None if refused => self.cluster_uid = Uid::Refused,
                None => {}
            }
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(answer: Result<Bytes, CallError>) -> Option<T> {
    serde_json::from_slice(&answer.ok()?).ok()
}

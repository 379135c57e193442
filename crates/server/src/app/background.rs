//! What goes on beside the doors while the server runs: files that are read again, certificates that are renewed, and
//! the farewell to the agents at the end.
//!
//! Started by `App::run`.

use std::{pin::Pin, sync::Arc, time::Duration};

use moorline_kube::ClusterObjects;
use moorline_mtls::{KeyPair, Reloading, Roots};
use moorline_oidc::Oidc;
use moorline_process::Phase;
use moorline_wire::CloseReason;
use rand::RngExt as _;
use tokio::sync::watch;

use crate::{
    bootstrap::StateDir,
    clusters::{self, observe::Shown},
    enrolment::authorities,
    notify::Notifier,
    reload,
    serving::Serving,
    state::State,
    tunnel::orders::Order,
};

/// The longest time over which agents are told to come back when this server stops: a second for every
/// [`crate::config::TunnelConfig::handshake_rate`] of them, at most this.
const MAX_SPREAD: Duration = Duration::from_secs(60);

/// What follows files and clocks while the server runs.
pub(super) struct Background {
    pub(super) serving: Vec<Serving>,
    pub(super) gateway_keys: Option<Reloading<KeyPair>>,
    pub(super) roots: Reloading<Roots>,
    pub(super) state_dir: StateDir,
    pub(super) files: reload::Files,
    pub(super) interval: Duration,
    pub(super) oidc: Option<Arc<Oidc>>,
    pub(super) notifier: Option<Notifier>,
}

impl Background {
    /// Starts what goes on until the process is cancelled.
    pub(super) fn start(self, state: &Arc<State>) {
        let until_cancelled = |name: &'static str, work: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let phases = state.phases.clone();
            state.tasks.spawn(name, async move {
                tokio::select! {
                    () = work => {}
                    () = phases.cancelled() => {}
                }
            });
        };
        let interval = self.interval;
        if let Some(notifier) = self.notifier {
            until_cancelled("notify", Box::pin(notifier.run(Arc::clone(state), state.events.feed())));
        }
        for serving in self.serving {
            until_cancelled("renew", Box::pin(serving.renew(Arc::clone(state))));
        }
        until_cancelled("reload", Box::pin(self.roots.watch(interval)));
        until_cancelled("authorities", Box::pin(authorities::watch(Arc::clone(state), self.state_dir, interval)));
        if let Some(keys) = self.gateway_keys {
            until_cancelled("reload", Box::pin(keys.watch(interval)));
        }
        if let Some(oidc) = self.oidc {
            until_cancelled("oidc-keys", Box::pin(async move { oidc.keep_keys().await }));
        }
        until_cancelled("reload", Box::pin(reload::watch(Arc::clone(state), self.files, interval)));
    }
}

/// Follows the clusters that are objects of the management cluster, and writes how they stand into them, until the
/// process is cancelled. What comes back resolves when all of them are known: to false when they never will be.
pub(super) fn follow(state: &Arc<State>, objects: ClusterObjects) -> impl Future<Output = bool> + use<> {
    let (complete, mut told) = watch::channel(false);
    let (shared, phases) = (Arc::clone(state), state.phases.clone());
    let feed = state.events.feed();
    state.tasks.spawn("clusters", async move {
        let shown = Shown::default();
        let following = async {
            tokio::join!(
                clusters::follow::follow(&shared.clusters, objects.clone(), complete, shown.clone()),
                clusters::observe::observe(Arc::clone(&shared), objects.clone(), shown.clone()),
                clusters::notices::tell(Arc::clone(&shared), objects.clone(), feed),
            )
        };
        tokio::select! {
            ((), (), ()) = following => {}
            () = phases.cancelled() => {}
        }
    });
    async move { told.wait_for(|complete| *complete).await.is_ok() }
}

/// Tells every agent that this server stops, spread over the time in which another one can take them all in, and cuts
/// what is left at the end.
pub(super) async fn farewell(state: Arc<State>) {
    let phases = &state.phases;
    phases.reached(Phase::GoAway).await;
    let sessions = state.registry.sessions();
    let seconds = 1.0 + sessions.len() as f64 / f64::from(state.tunnel.handshake_rate);
    let spread = Duration::from_secs_f64(seconds).min(MAX_SPREAD);
    tracing::info!(sessions = sessions.len(), spread_ms = spread.as_millis(), "telling agents to go elsewhere");
    for session in sessions {
        let after = spread.mul_f64(rand::rng().random());
        session.orders().give(Order::GoAway { reason: CloseReason::Draining, after });
    }
    phases.cancelled().await;
    for session in state.registry.sessions() {
        session.orders().give(Order::Cut(CloseReason::Shutdown));
    }
}

//! What every part of the server shares. Made once by the composition root, read by everybody, owned by nobody.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use moorline_access::{Policy, StaticTokens};
use moorline_kube::AccessReviews;
use moorline_model::Timestamp;
use moorline_mux::MemoryBudget;
use moorline_process::{Phases, Tasks};
use tokio::sync::Semaphore;

use crate::{
    audit::Audit,
    bootstrap::StateDir,
    clusters::Clusters,
    config::{GatewayConfig, TunnelConfig},
    control::issue::Issuer,
    events::Events,
    front::{authn::Chain, authz::Judge, pool::PoolContext},
    metrics::Metrics,
    registry::Registry,
    reload::InUse,
    services::Services,
};

/// Shared by the gateway, the tunnel and the control API.
pub(crate) struct State {
    /// Clusters and their sessions.
    pub(crate) registry: Arc<Registry>,
    /// The same clusters, to be changed.
    pub(crate) clusters: Clusters,
    /// What happens to them.
    pub(crate) events: Events,
    /// When this server was started.
    pub(crate) started: Timestamp,
    /// Signs the certificates of agents.
    pub(crate) issuer: Arc<Issuer>,
    /// Where the authorities are kept.
    pub(crate) state_dir: StateDir,
    /// One turn: whoever changes the authorities has it.
    pub(crate) rotating: Semaphore,
    /// Until when clusters that the store does not know are taken in by their certificates.
    pub(crate) adopt_until: Option<Timestamp>,
    /// Who may do what; replaced when its file changes. Load it anew for each request.
    pub(crate) policy: ArcSwap<Policy>,
    /// Whose token is whose; replaced when its file changes. Load it anew for each request.
    pub(crate) tokens: ArcSwap<StaticTokens>,
    /// The file that they are read from, and the hash of what is in use of it. Held while it is written, and while what was read from it takes effect, so that
    /// nothing older comes after; on a thread for blocking work.
    pub(crate) token_file: Mutex<InUse>,
    /// Whom to ask about tokens that are not in that table.
    pub(crate) authenticators: Chain,
    /// Who decides instead of the policy, where the management cluster's Kubernetes is to.
    pub(crate) access_reviews: Option<Arc<AccessReviews>>,
    /// Where requests leave their trail, if anywhere.
    pub(crate) audit: Option<Arc<Audit>>,
    /// The API group of `managedclusters` in policies.
    pub(crate) api_group: String,
    /// Limits and timeouts of the gateway.
    pub(crate) gateway: GatewayConfig,
    /// Limits and timeouts of the tunnel.
    pub(crate) tunnel: TunnelConfig,
    /// What all sessions together may hold in bytes that nobody has read yet.
    pub(crate) memory: MemoryBudget,
    /// What every session's pool of streams is made with.
    pub(crate) pools: PoolContext,
    /// Turns of the probes through sessions.
    pub(crate) checks: Semaphore,
    /// Services of the management cluster that programs in managed clusters may reach.
    pub(crate) services: Services,
    /// Counters and gauges of everything but the gateway, which has its own.
    pub(crate) metrics: Metrics,
    /// The only spawn.
    pub(crate) tasks: Tasks,
    /// How far the process is on its way out.
    pub(crate) phases: Phases,
}

impl State {
    /// Who decides, as things stand. Ask for it anew for each request.
    pub(crate) fn judge(&self) -> Judge {
        match &self.access_reviews {
            Some(reviews) => Judge::kubernetes(reviews),
            None => Judge::Policy(self.policy.load_full()),
        }
    }
}

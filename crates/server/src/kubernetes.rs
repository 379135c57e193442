//! What stands between this server and the management cluster's Kubernetes, where it is asked at all.
//!
//! Called by `App::build`. Nothing is dialled here: a kube-apiserver that is down does not keep the server from starting.

use std::sync::Arc;

use moorline_kube::{AccessReviews, ClusterObjects, Connection, ConnectionError, TokenReviews};

use crate::config::{ClusterStore, KubernetesConfig, Problem, Problems};

/// Whoever is asked there.
#[derive(Default)]
pub(crate) struct Reviews {
    /// Whose token it is.
    pub(crate) tokens: Option<TokenReviews>,
    /// Who may do what.
    pub(crate) decisions: Option<Arc<AccessReviews>>,
    /// Where clusters are kept.
    pub(crate) clusters: Option<ClusterObjects>,
}

impl Reviews {
    /// Opens the way to it, if it is to be asked anything.
    ///
    /// # Errors
    /// The kubeconfig, or the service account of the pod, cannot be used.
    pub(crate) async fn open(config: &KubernetesConfig, store: ClusterStore) -> Result<Self, Problems> {
        let keeps = store == ClusterStore::Kubernetes;
        if !config.authn && !config.authz && !keeps {
            return Ok(Self::default());
        }
        let opened = match &config.kubeconfig {
            Some(path) => Connection::from_kubeconfig(path, config.timeout).await,
            None => Connection::in_cluster(config.timeout),
        };
        let connection = opened.map_err(|error| problem(config, &error))?;
        tracing::info!(
            authn = config.authn,
            authz = config.authz,
            clusters = keeps,
            "asking the management cluster's Kubernetes"
        );
        let tokens = || TokenReviews::new(connection.clone(), config.audiences.clone(), config.token_lives);
        let decisions = || Arc::new(AccessReviews::new(connection.clone(), config.decision_lives));
        Ok(Self {
            tokens: config.authn.then(tokens),
            decisions: config.authz.then(decisions),
            clusters: keeps.then(|| ClusterObjects::new(connection.clone())),
        })
    }
}

fn problem(config: &KubernetesConfig, error: &ConnectionError) -> Problem {
    match &config.kubeconfig {
        Some(path) => Problem {
            at: format!("--kubeconfig {}", path.display()),
            what: error.to_string(),
            remedy: "name a kubeconfig whose current context reaches the management cluster over TLS".to_owned(),
        },
        None => Problem {
            at: "--kubernetes-authn, --kubernetes-authz, --cluster-store kubernetes".to_owned(),
            what: error.to_string(),
            remedy: "run in a pod with a service account, or name a --kubeconfig".to_owned(),
        },
    }
}

//! Makes the certificate of an agent: the only place of the server that signs one.
//!
//! Called when a cluster is registered. The key exists in the answer to that one request and nowhere else.

use std::time::Duration;

use moorline_ca::{Authority, IssueError, Issued};
use moorline_model::{ClusterName, ClusterUid};

use crate::clock;

/// Signs agents.
pub(crate) struct Issuer {
    authority: Authority,
    life: Duration,
    address: String,
}

impl Issuer {
    /// Signs by the tunnel's authority; `address` is what agents dial.
    pub(crate) fn new(authority: Authority, life: Duration, address: String) -> Self {
        Self { authority, life, address }
    }

    /// A certificate for the agent of a cluster.
    ///
    /// # Errors
    /// [`IssueError`]: most often the authority is not in its time.
    pub(super) fn issue(&self, cluster: &ClusterName, uid: &ClusterUid) -> Result<Issued, IssueError> {
        self.authority.issue_agent(cluster, uid, clock::now(), self.life)
    }

    /// What agents trust.
    pub(super) fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// What agents dial.
    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

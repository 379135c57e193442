//! Makes the certificate of an agent: the only place of the server that signs one.
//!
//! Called when a cluster is registered and when its agent gets its next certificate. A key that is made here exists in
//! the answer to that one request and nowhere else.

use std::time::Duration;

use moorline_ca::{Authority, Certified, IssueError, Issued};
use moorline_model::{ClusterName, ClusterUid, Fingerprint};
use moorline_pki::CertificateRequest;

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

    /// A certificate for the agent of a cluster over a key of its own, and what it is to trust then.
    ///
    /// # Errors
    /// [`IssueError`]: most often the authority is not in its time.
    pub(crate) fn issue_for(
        &self,
        cluster: &ClusterName,
        uid: &ClusterUid,
        request: &CertificateRequest,
    ) -> Result<(Certified, String), IssueError> {
        let certified = self.authority.issue_agent_for(cluster, uid, request, clock::now(), self.life)?;
        Ok((certified, self.authority.certificate_pem().to_owned()))
    }

    /// What agents trust: PEM, and the SHA-256 of each.
    pub(crate) fn roots(&self) -> (String, Vec<Fingerprint>) {
        (self.authority.certificate_pem().to_owned(), vec![self.authority.info().fingerprint])
    }

    /// How long certificates of agents live.
    pub(crate) fn life(&self) -> Duration {
        self.life
    }

    /// What agents trust.
    pub(super) fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// What agents dial.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

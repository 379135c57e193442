//! Makes the certificates of agents and of the tunnel's own door: the only place of the server that signs either.
//!
//! Called when a cluster is registered or migrates, when its agent joins or gets its next certificate, and by `serving`. A key that
//! is made here exists in the answer to that one request and nowhere else. Which authority signs, and which are believed,
//! changes while the server runs: `enrolment::authorities` decides it, everybody else asks anew each time.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use moorline_ca::{Authority, Certified, IssueError, Issued, SubjectName};
use moorline_model::{ClusterName, ClusterUid, Dialect, Fingerprint};
use moorline_mtls::{KeyPair, Roots, RootsError, Source};
use moorline_pki::CertificateRequest;
use tokio::sync::watch;

use crate::{
    bootstrap::overlap::{Leaving, TunnelAuthorities},
    clock,
    serving::ServingError,
};

/// Signs agents.
pub(crate) struct Issuer {
    current: ArcSwap<Current>,
    roots: Source<Roots>,
    changes: watch::Sender<u64>,
    /// What was signed. Held while something is, so that a change of authorities knows all that the one before signed,
    /// also what is not in any record yet.
    signed: Mutex<Signed>,
    lives: CertificateLives,
    address: String,
}

/// How long certificates of agents live, by what the agent speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateLives {
    /// Of our own agents, which renew them.
    pub(crate) moorline: Duration,
    /// Of Calico's Guardian, which cannot.
    pub(crate) guardian: Duration,
}

/// Certificates of agents that were signed lately.
#[derive(Default)]
struct Signed {
    now: VecDeque<Fingerprint>,
    before: VecDeque<Fingerprint>,
}

/// How many certificates are remembered that may be on their way into a record.
const REMEMBERED: usize = 4096;

/// Which authorities there are.
pub(crate) struct Current {
    authorities: TunnelAuthorities,
    /// The one that stays, in a certificate of the one that is being left.
    vouched: Option<String>,
    roots_pem: String,
    roots: Vec<Fingerprint>,
    left: HashSet<Fingerprint>,
}

impl Issuer {
    /// Signs by the authority that stays; `address` is what agents dial.
    ///
    /// # Errors
    /// Authorities that TLS cannot use.
    pub(crate) fn new(
        authorities: TunnelAuthorities,
        lives: CertificateLives,
        address: String,
    ) -> Result<Self, RootsError> {
        let current = Current::new(authorities);
        let roots = Roots::from_pem(current.roots_pem.as_bytes())?.into();
        let changes = watch::Sender::new(0);
        let current = ArcSwap::from_pointee(current);
        Ok(Self { current, roots, changes, signed: Mutex::default(), lives, address })
    }

    /// Signs by these from now on, and believes them.
    ///
    /// # Errors
    /// Authorities that TLS cannot use; those before stay in use.
    pub(crate) fn replace(&self, authorities: TunnelAuthorities) -> Result<(), RootsError> {
        let current = Current::new(authorities);
        let roots = Roots::from_pem(current.roots_pem.as_bytes())?;
        {
            let mut signed = self.signed();
            if current.staying().info().fingerprint != self.current().staying().info().fingerprint {
                signed.before = std::mem::take(&mut signed.now);
            }
            self.current.store(Arc::new(current));
        }
        self.roots.replace(roots);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// A certificate for the agent of a cluster.
    ///
    /// # Errors
    /// [`IssueError`]: most often the authority is not in its time.
    pub(super) fn issue(
        &self,
        cluster: &ClusterName,
        uid: &ClusterUid,
        dialect: Dialect,
    ) -> Result<Issued, IssueError> {
        let mut signed = self.signed();
        let (current, now, life) = (self.current(), clock::now(), self.life_of(dialect));
        let issued = match dialect {
            Dialect::Moorline => current.staying().issue_agent(cluster, uid, now, life)?,
            Dialect::Guardian => current.staying().issue_guardian(cluster, uid, now, life)?,
        };
        signed.remember(issued.fingerprint);
        Ok(issued)
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
        let mut signed = self.signed();
        let current = self.current();
        let certified = current.staying().issue_agent_for(cluster, uid, request, clock::now(), self.lives.moorline)?;
        signed.remember(certified.fingerprint);
        Ok((certified, current.roots_pem.clone()))
    }

    /// A certificate for the tunnel's door, in a chain that agents verify whichever of the authorities they believe.
    ///
    /// # Errors
    /// Most often the authority is not in its time.
    pub(crate) fn issue_door(&self, names: &[SubjectName], life: Duration) -> Result<KeyPair, ServingError> {
        let current = self.current();
        let issued = current.staying().issue_server(names, clock::now(), life)?;
        let chain = issued.certificate_pem + current.vouched.as_deref().unwrap_or_default();
        Ok(KeyPair::from_pem(chain.as_bytes(), issued.key_pem.as_bytes())?)
    }

    /// What agents trust: PEM, and the SHA-256 of each.
    pub(crate) fn roots(&self) -> (String, Vec<Fingerprint>) {
        let current = self.current();
        (current.roots_pem.clone(), current.roots.clone())
    }

    /// Whom the tunnel's door believes about agents.
    pub(crate) fn believed(&self) -> Source<Roots> {
        self.roots.clone()
    }

    /// Sees every change of the authorities from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Which authorities there are.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// What the authority before this one signed last, whether it is in a record or still on its way there.
    pub(crate) fn signed_before(&self) -> Vec<Fingerprint> {
        self.signed().before.iter().copied().collect()
    }

    fn signed(&self) -> MutexGuard<'_, Signed> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long certificates of our own agents live.
    pub(crate) fn life(&self) -> Duration {
        self.lives.moorline
    }

    /// How long certificates live of agents that speak so.
    pub(crate) fn life_of(&self, dialect: Dialect) -> Duration {
        match dialect {
            Dialect::Moorline => self.lives.moorline,
            Dialect::Guardian => self.lives.guardian,
        }
    }

    /// What agents trust.
    pub(super) fn authority_pem(&self) -> String {
        self.current().roots_pem.clone()
    }

    /// What agents dial.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Signed {
    fn remember(&mut self, fingerprint: Fingerprint) {
        if self.now.len() >= REMEMBERED {
            self.now.pop_front();
        }
        self.now.push_back(fingerprint);
    }
}

impl Current {
    fn new(authorities: TunnelAuthorities) -> Self {
        let TunnelAuthorities { staying, leaving } = &authorities;
        let both = || std::iter::once(staying).chain(leaving.iter().map(|leaving| &leaving.authority));
        let vouched = leaving.as_ref().and_then(|leaving| {
            let vouched = staying.cross_signed_by(&leaving.authority, clock::now());
            // Agents that know only the other one are lost then anyway: it has ended.
            vouched.inspect_err(|error| tracing::warn!(%error, "nobody vouches for the tunnel's authority")).ok()
        });
        let roots_pem = both().map(Authority::certificate_pem).collect();
        let roots = both().map(|authority| authority.info().fingerprint).collect();
        let certificates = leaving.as_ref().and_then(|leaving| leaving.certificates.as_ref());
        let left = certificates.into_iter().flatten().copied().collect();
        Self { vouched, roots_pem, roots, left, authorities }
    }

    /// The one that signs.
    pub(crate) fn staying(&self) -> &Authority {
        &self.authorities.staying
    }

    /// The one that is believed until everybody has left it.
    pub(crate) fn leaving(&self) -> Option<&Leaving> {
        self.authorities.leaving.as_ref()
    }

    /// Whether the authority that is being left signed this certificate of an agent.
    pub(crate) fn is_left(&self, certificate: &Fingerprint) -> bool {
        self.left.contains(certificate)
    }

    /// The SHA-256 of each authority that is believed.
    pub(crate) fn roots(&self) -> &[Fingerprint] {
        &self.roots
    }
}

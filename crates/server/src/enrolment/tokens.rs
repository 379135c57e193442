//! Join tokens: how one is made, and what it takes to use one. Pure decisions about a cluster's record; whoever calls
//! puts them into force through [`crate::clusters::Clusters`].
//!
//! Called by `control` (made, revoked) and by `join` (used). Of a secret the server keeps the hash. A token is used once,
//! by one key: whoever asks again with the same token *and* the same key, within its time, lost the answer and gets the
//! same certificate again, so that an agent which dies between the two needs nobody's help.

use std::time::Duration;

use moorline_model::{
    ActiveFingerprint, ClusterName, ClusterRecord, Dialect, Fingerprint, JoinToken, MAX_JOIN_TOKENS, Timestamp,
};
use moorline_pki::{CertificateRequest, Span};
use moorline_wire::{Invitation, JoinRefusal, JoinSecret};
use rand::Rng as _;
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// How long a token counts, unless it is told otherwise.
pub(crate) const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// The shortest and the longest that it may.
pub(crate) const MIN_LIFE: Duration = Duration::from_secs(5 * 60);
pub(crate) const MAX_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Random bytes of an id. It is no secret; two of one server are never the same.
const ID_BYTES: usize = 6;

/// Certificates that one cluster may have at once: those of its sessions, the one before, the one that joins.
const MAX_CERTIFICATES: usize = 12;

/// All tokens of a cluster are unused and in their time: there is no room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the cluster has {MAX_JOIN_TOKENS} unused join tokens already")]
pub(crate) struct NoRoom;

/// Why a token lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// For programs.
    pub(crate) reason: JoinRefusal,
    /// What happened and what to do, for whoever runs the agent.
    pub(crate) message: String,
}

/// A token that was presented, as far as it can be told apart without its secret.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    /// Which.
    pub(crate) id: String,
    /// The hash of what was shown as its secret.
    pub(crate) hash: Fingerprint,
}

/// What becomes of a token that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It was not used before.
    Fresh,
    /// It was, by the same key: this certificate was the answer.
    Again(String),
}

/// Makes a token for a cluster, and the text of it that is given out once.
pub(crate) fn mint(
    name: &ClusterName,
    (address, pins): (&str, Vec<Fingerprint>),
    by: &str,
    now: Timestamp,
    life: Duration,
) -> (JoinToken, Invitation) {
    let (mut id, mut secret) = ([0_u8; ID_BYTES], [0_u8; 32]);
    rand::rng().fill_bytes(&mut id);
    rand::rng().fill_bytes(&mut secret);
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let secret = JoinSecret::from_bytes(secret);
    let token = JoinToken {
        id: id.clone(),
        hash: hash(&secret),
        created: now,
        expires: now.saturating_add(life),
        created_by: by.to_owned(),
        used: None,
        used_for: None,
        certificate: None,
    };
    let invitation = Invitation { address: address.to_owned(), name: name.clone(), id, secret, pins };
    (token, invitation)
}

/// Puts a token into a record. Those that are over make room: first the expired, then the used, the oldest first.
///
/// # Errors
/// [`NoRoom`].
pub(crate) fn add(record: &mut ClusterRecord, token: JoinToken, now: Timestamp) -> Result<(), NoRoom> {
    let is_over: [fn(&JoinToken, Timestamp) -> bool; 2] =
        [|token, now| token.expires < now, |token, _now| token.used.is_some()];
    for is_over in is_over {
        while record.join_tokens.len() >= MAX_JOIN_TOKENS
            && let Some(at) = record.join_tokens.iter().position(|token| is_over(token, now))
        {
            record.join_tokens.remove(at);
        }
    }
    if record.join_tokens.len() >= MAX_JOIN_TOKENS {
        return Err(NoRoom);
    }
    record.join_tokens.push(token);
    Ok(())
}

/// The SHA-256 of a secret, by which the server knows it.
pub(crate) fn hash(secret: &JoinSecret) -> Fingerprint {
    moorline_pki::fingerprint(secret.as_bytes())
}

impl Presented {
    /// Whether a record has this very token. How long it takes tells nothing of the secret.
    pub(crate) fn is_of(&self, record: &ClusterRecord) -> bool {
        self.find(record).is_some()
    }

    /// Decides whether a cluster's token may be used for a key.
    ///
    /// # Errors
    /// [`Refused`], with words for whoever holds the token.
    pub(crate) fn claim(
        &self,
        record: &ClusterRecord,
        request: &CertificateRequest,
        now: Timestamp,
    ) -> Result<Claim, Refused> {
        let at = self.find(record).ok_or_else(Refused::unknown)?;
        let Some(token) = record.join_tokens.get(at) else { return Err(Refused::unknown()) };
        let (name, again) = (&record.name, format!("make a new one there: moorline token create {}", record.name));
        if record.revoked.is_some_and(|revoked| token.created <= revoked) {
            let message =
                format!("the certificates of the cluster {name} were revoked after this join token was made; {again}");
            return Err(Refused { reason: JoinRefusal::ClusterRevoked, message });
        }
        if token.expires < now {
            let (ago, at) = (Span::between(token.expires, now), token.expires);
            let message =
                format!("this join token expired {ago} ago, at {at} by the clock of the management cluster; {again}");
            return Err(Refused { reason: JoinRefusal::TokenExpired, message });
        }
        let Some(used) = token.used else { return Ok(Claim::Fresh) };
        if token.used_for == Some(request.key_fingerprint())
            && let Some(pem) = token.certificate.as_ref().filter(|pem| stands(record, pem))
        {
            return Ok(Claim::Again(pem.clone()));
        }
        let message = format!(
            "this join token was used at {used}, and each works once; {again}. If it was not you who used it, shut that \
             agent out: moorline cluster revoke {name}"
        );
        Err(Refused { reason: JoinRefusal::TokenUsed, message })
    }

    /// Notes in the record that the token was used, by which key, and what certificate was the answer.
    pub(crate) fn consume(&self, record: &mut ClusterRecord, key: Fingerprint, certificate: String, now: Timestamp) {
        if let Some(token) = self.find(record).and_then(|at| record.join_tokens.get_mut(at)) {
            token.used = Some(now);
            token.used_for = Some(key);
            token.certificate = Some(certificate);
        }
    }

    fn find(&self, record: &ClusterRecord) -> Option<usize> {
        let mut found = None;
        for (at, token) in record.join_tokens.iter().enumerate() {
            let same_secret = bool::from(token.hash.as_bytes().ct_eq(self.hash.as_bytes()));
            if same_secret && token.id == self.id {
                found = Some(at);
            }
        }
        found
    }
}

/// Lets a certificate stand for a cluster beside those that its agents use. One that was handed out and is not among those
/// `seen` makes room; the first, which stood for the cluster before, stays until the new one has connected.
pub(crate) fn enrol(record: &mut ClusterRecord, seen: &[Fingerprint], new: ActiveFingerprint) -> Result<(), Refused> {
    if record.dialect == Dialect::Guardian {
        let name = &record.name;
        let message = format!(
            "the agent of the cluster {name} is Calico's Guardian, which joins by a manifest only; to change to this \
             agent: moorline cluster migrate {name} --dialect moorline"
        );
        return Err(Refused { reason: JoinRefusal::UnknownToken, message });
    }
    let alike = |active: &&ActiveFingerprint| active.dialect == new.dialect;
    let first = record.fingerprints.iter().find(alike).map(|active| active.fingerprint);
    // Those of another dialect go when that one is left, and a renewed one is what its agent has kept.
    record.retire(|active| {
        let kept = Some(active.fingerprint) == first || active.dialect != new.dialect || active.renews.is_some();
        kept || seen.contains(&active.fingerprint)
    });
    if record.fingerprints.len() >= MAX_CERTIFICATES {
        let message = format!("the cluster {} has {MAX_CERTIFICATES} certificates in use already", record.name);
        return Err(Refused { reason: JoinRefusal::Unavailable, message });
    }
    record.fingerprints.push(new);
    record.revoked = None;
    Ok(())
}

fn stands(record: &ClusterRecord, pem: &str) -> bool {
    let certificates = moorline_pki::certificates_from_pem(pem.as_bytes()).unwrap_or_default();
    certificates.first().is_some_and(|der| record.accepts(&moorline_pki::fingerprint(der)))
}

impl Refused {
    /// The answer to whoever shows a token that is not one: which part of it is wrong is not told.
    pub(crate) fn unknown() -> Self {
        let message = "this join token is not known to the management cluster: it was revoked, its cluster was deleted, \
                       or it comes from elsewhere; make a new one there: moorline token create NAME";
        Self { reason: JoinRefusal::UnknownToken, message: message.to_owned() }
    }
}

#[cfg(test)]
mod tests;

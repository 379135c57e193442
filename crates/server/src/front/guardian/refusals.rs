//! What a WebSocket was refused with, for the SPDY that its client comes back with.
//!
//! Called by `forward`. kubectl asks for a WebSocket first and, whatever that is refused with, asks again for SPDY; it
//! shows what the second is refused with. SPDY does not go through Guardian at all, so whoever may not run a command would
//! read of protocols instead of rights. So the cluster's own words are kept for a moment, and said again to the same user
//! who asks for the same.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::uri::PathAndQuery;
use moorline_model::{Identity, Status};
use tokio::time::Instant;

/// Bytes of a refusal that are read: kube-apiserver's have some hundred.
pub(in crate::front) const MAX_REFUSAL: usize = 64 * 1024;

/// Bytes of one that is kept, and told in the log: what is longer is no word of kube-apiserver's to a person.
const MAX_KEPT: usize = 4 * 1024;

/// kubectl comes back at once.
const KEPT: Duration = Duration::from_secs(5);

/// Refusals of one session that are kept; the oldest goes first.
const MOST: usize = 32;

/// What was refused lately.
#[derive(Default)]
pub(in crate::front) struct Refusals(Mutex<VecDeque<Refusal>>);

struct Refusal {
    at: Instant,
    identity: Identity,
    path: PathAndQuery,
    status: Status,
}

impl Refusals {
    /// Keeps what a user's WebSocket was refused with, if it is a failure in Kubernetes' words.
    pub(in crate::front) fn remember(&self, identity: &Identity, path: &PathAndQuery, body: &[u8]) {
        let short = Some(body).filter(|body| body.len() <= MAX_KEPT);
        let Some(status) = short.and_then(|body| serde_json::from_slice::<Status>(body).ok()) else { return };
        if !(400..600).contains(&status.code) {
            return;
        }
        let mut kept = self.locked();
        if kept.len() >= MOST {
            kept.pop_front();
        }
        kept.push_back(Refusal { at: Instant::now(), identity: identity.clone(), path: path.clone(), status });
    }

    /// What this user's WebSocket to the same path was refused with just now. Said once.
    pub(in crate::front) fn recall(&self, identity: &Identity, path: &PathAndQuery) -> Option<Status> {
        let mut kept = self.locked();
        kept.retain(|refusal| refusal.at.elapsed() < KEPT);
        let found = kept.iter().rposition(|refusal| refusal.path == *path && refusal.identity == *identity)?;
        kept.remove(found).map(|refusal| refusal.status)
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use moorline_model::Reason;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_said_again_to_whom_it_was_said() {
        let refusals = Refusals::default();
        let (ann, bob) = (Identity::new("ann").unwrap(), Identity::new("bob").unwrap());
        let path = PathAndQuery::from_static("/api/v1/namespaces/a/pods/b/exec?command=sh");
        let forbidden = Status::failure(403, Reason::Forbidden, "no");
        refusals.remember(&ann, &path, &forbidden.to_json());
        refusals.remember(&ann, &path, b"not a Status");
        let endless = Status::failure(403, Reason::Forbidden, "no".repeat(MAX_KEPT));
        refusals.remember(&ann, &path, &endless.to_json());
        refusals.remember(&ann, &path, &Status::success().to_json());
        assert_eq!(refusals.recall(&bob, &path), None);
        assert_eq!(refusals.recall(&ann, &PathAndQuery::from_static("/api")), None);
        assert_eq!(refusals.recall(&ann, &path), Some(forbidden.clone()));
        assert_eq!(refusals.recall(&ann, &path), None, "once");
        refusals.remember(&ann, &path, &forbidden.to_json());
        tokio::time::advance(KEPT).await;
        assert_eq!(refusals.recall(&ann, &path), None, "not for long");
        for _ in 0..10 * MOST {
            refusals.remember(&ann, &path, &forbidden.to_json());
        }
        assert_eq!(refusals.locked().len(), MOST);
    }
}

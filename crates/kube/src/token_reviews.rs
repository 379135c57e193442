//! Whose token it is, by `TokenReview`: service accounts, and whatever else the kube-apiserver knows.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use moorline_access::{Authenticator, AuthenticatorUnavailable};
use moorline_model::{Identity, InvalidIdentity};

use crate::{
    Connection, Lives,
    cache::{Cache, Remembered},
    call::{CallError, Turns},
};

/// Bytes of a token that is asked about. A kube-apiserver's own have one or two thousand, those of an identity provider
/// that names hundreds of groups some ten thousand; longer ones are nobody's.
const MAX_TOKEN: usize = 32 * 1024;

/// An authenticator that asks Kubernetes.
pub struct TokenReviews {
    connection: Connection,
    audiences: Vec<String>,
    turns: Turns,
    cache: Cache<Known>,
}

#[derive(Clone)]
struct Known(Option<Identity>);

impl TokenReviews {
    /// Tokens must be for one of these audiences; with none, for the kube-apiserver itself.
    #[must_use]
    pub fn new(connection: Connection, audiences: Vec<String>, lives: Lives) -> Self {
        Self { connection, audiences, turns: Turns::default(), cache: Cache::new(lives) }
    }

    async fn ask(&self, token: &str) -> Result<Known, CallError> {
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: (!self.audiences.is_empty()).then(|| self.audiences.clone()),
        };
        let review = self.connection.review(&self.turns, &TokenReview { spec, ..TokenReview::default() }).await?;
        let status = review.status.ok_or(CallError::Garbage("TokenReview"))?;
        if status.authenticated != Some(true) {
            // Its error tells a wrong token in many words, some of them the token's own.
            return Ok(Known(None));
        }
        if !self.is_for_us(&status) {
            return Ok(Known(None));
        }
        let user = status.user.ok_or(CallError::Garbage("TokenReview"))?;
        identity(user).map(|identity| Known(Some(identity))).map_err(|error| {
            tracing::warn!(%error, "a user of the management cluster cannot be carried");
            CallError::Garbage("TokenReview")
        })
    }

    /// A kube-apiserver that knows nothing of audiences names none, and its yes is then not for ours.
    fn is_for_us(&self, status: &TokenReviewStatus) -> bool {
        let answered = status.audiences.as_deref().unwrap_or_default();
        self.audiences.is_empty() || self.audiences.iter().any(|ours| answered.contains(ours))
    }

    #[cfg(test)]
    pub(crate) async fn settled(&self) -> [(u64, u64); 2] {
        self.cache.settled().await
    }
}

impl Authenticator for TokenReviews {
    async fn authenticate(&self, token: &str) -> Result<Option<Identity>, AuthenticatorUnavailable> {
        // What may be a token of the kube-apiserver's is for it to say: it may know others than its own.
        if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(None);
        }
        let key = self.cache.key(|key| key.text(token));
        match self.connection.in_time(self.cache.get(key, || self.ask(token))).await {
            Ok(Known(identity)) => Ok(identity),
            Err(error) => Err(AuthenticatorUnavailable(format!("TokenReview: {error}"))),
        }
    }
}

fn identity(user: UserInfo) -> Result<Identity, InvalidIdentity> {
    let mut identity =
        Identity::new(user.username.unwrap_or_default())?.with_groups(user.groups.unwrap_or_default())?;
    if let Some(uid) = user.uid.filter(|uid| !uid.is_empty()) {
        identity = identity.with_uid(uid)?;
    }
    let extra = user.extra.unwrap_or_default();
    extra.into_iter().try_fold(identity, |identity, (key, values)| identity.with_extra(key, values))
}

impl Remembered for Known {
    fn is_yes(&self) -> bool {
        self.0.is_some()
    }

    fn size(&self) -> usize {
        /// What an allocation takes besides its bytes.
        const TEXT: usize = 40;
        self.0.as_ref().map_or(0, |identity| {
            let groups: usize = identity.groups().iter().map(|group| group.len() + TEXT).sum();
            let extra = identity.extra().iter();
            let extra: usize = extra
                .map(|(key, values)| key.len() + TEXT + values.iter().map(|value| value.len() + TEXT).sum::<usize>())
                .sum();
            identity.user().len() + identity.uid().map_or(0, str::len) + groups + extra + TEXT
        })
    }
}

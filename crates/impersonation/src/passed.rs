//! What of an identity is passed on besides user and groups.
//!
//! Kubernetes asks for a right on each part of an identity that is acted as. Where the agent shall have few rights, less
//! is passed on.

use std::collections::BTreeSet;

use moorline_model::Identity;

use crate::{mapping::with_rest, narrowing::Narrowed};

/// Extra values that take rights away from their user: left out, more could be done than the user may.
const LIMITS: [&str; 1] = ["scopes.authorization.openshift.io"];

/// What is passed on; by default everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Whether the uid is.
    pub uid: bool,
    /// The extra keys whose values are, in lower case; none for all.
    pub extra: Option<BTreeSet<String>>,
}

impl Default for Passed {
    fn default() -> Self {
        Self::everything()
    }
}

impl Passed {
    pub(crate) const fn everything() -> Self {
        Self { uid: true, extra: None }
    }

    /// The identity without what is not passed on.
    pub(crate) fn of(&self, identity: Identity) -> Result<Identity, Narrowed> {
        let passes = |key: &str| self.extra.as_ref().is_none_or(|keys| keys.contains(key));
        if let Some(limit) = LIMITS.into_iter().find(|limit| identity.extra().contains_key(*limit) && !passes(limit)) {
            return Err(Narrowed::Limited(limit));
        }
        if (self.uid || identity.uid().is_none()) && identity.extra().keys().all(|key| passes(key)) {
            return Ok(identity);
        }
        let bare = Identity::new(identity.user()).and_then(|bare| bare.with_groups(identity.groups()));
        let uid = identity.uid().filter(|_| self.uid);
        let extra = identity.extra().iter().filter(|(key, _)| passes(key));
        bare.and_then(|bare| with_rest(bare, uid, extra)).map_err(Narrowed::Unmapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Identity {
        let ann = Identity::new("ann").unwrap().with_groups(["dev"]).unwrap().with_uid("7").unwrap();
        ann.with_extra("example.com/team", ["a", "b"]).unwrap().with_extra("scopes", ["x"]).unwrap()
    }

    #[test]
    fn what_is_not_passed_on_is_left_out() {
        let keys = |keys: &[&str]| Some(keys.iter().map(|key| (*key).to_owned()).collect());
        let passed = |uid, extra| Passed { uid, extra }.of(ann()).unwrap();
        assert_eq!(passed(true, None), ann());
        assert_eq!(passed(true, keys(&["example.com/team", "scopes", "other"])), ann());
        let less = passed(false, keys(&["example.com/team"]));
        assert_eq!((less.user(), less.groups(), less.uid()), ("ann", &["dev".to_owned()][..], None));
        assert_eq!(less.extra().len(), 1);
        assert_eq!(less.extra()["example.com/team"], ["a", "b"]);
        assert!(passed(true, keys(&[])).extra().is_empty());
    }

    #[test]
    fn what_takes_rights_away_is_never_left_out() {
        let limited = ann().with_extra("Scopes.Authorization.OpenShift.io", ["user:info"]).unwrap();
        let refused = Passed { uid: true, extra: Some(BTreeSet::new()) }.of(limited.clone()).unwrap_err();
        assert_eq!(refused, Narrowed::Limited("scopes.authorization.openshift.io"));
        assert_eq!(Passed::default().of(limited.clone()).unwrap(), limited);
    }
}

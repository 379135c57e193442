//! The reviews a user asks about themselves: who am I, may I, what may I. Pure but for the clock.

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{caller::Caller, objects::timestamp};

/// `SelfSubjectReview`: as whom the request arrived.
pub(crate) fn who_am_i(caller: &Caller) -> Value {
    json!({
        "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": timestamp(OffsetDateTime::now_utc())},
        "status": {"userInfo": caller.user_info()},
    })
}

/// `SelfSubjectAccessReview`: yes, since the demo has no roles; that nothing can be written anyway is another matter.
pub(crate) fn can_i(asked: &Value) -> Value {
    json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "metadata": {"creationTimestamp": null},
        "spec": asked["spec"],
        "status": {"allowed": true, "reason": "the Moorline demo has no roles: everyone may read everything"},
    })
}

/// `SelfSubjectRulesReview`, behind `kubectl auth can-i --list`.
pub(crate) fn rules(asked: &Value) -> Value {
    json!({
        "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1",
        "metadata": {"creationTimestamp": null},
        "spec": asked["spec"],
        "status": {
            "resourceRules": [{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        },
    })
}

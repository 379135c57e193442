//! What Kubernetes asks before it lets somebody act as somebody else, and whom they are then.

use moorline_model::{Identity, InvalidIdentity};

use crate::Attributes;

/// Groups, extra values and the like that are checked for one request: each is one decision and, with Kubernetes as
/// the authorizer, one `SubjectAccessReview`.
pub(crate) const MAX_PARTS: usize = 1024;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";

/// Everything that whoever wants to act as `whom` must be allowed to `impersonate`, one by one.
pub(crate) fn parts(whom: &Identity) -> impl Iterator<Item = Attributes<'_>> {
    let base = Attributes { verb: "impersonate", ..Attributes::default() };
    let user = match service_account(whom.user()) {
        Some((namespace, name)) => {
            Attributes { resource: "serviceaccounts", namespace: Some(namespace), name: Some(name), ..base }
        }
        None => Attributes { resource: "users", name: Some(whom.user()), ..base },
    };
    let uid = whom.uid().map(|uid| Attributes { api_group: AUTHENTICATION, resource: "uids", name: Some(uid), ..base });
    let groups = whom.groups().iter().map(move |group| Attributes { resource: "groups", name: Some(group), ..base });
    let extra = whom.extra().iter().flat_map(move |(key, values)| {
        values.iter().map(move |value| Attributes {
            api_group: AUTHENTICATION,
            resource: "userextras",
            subresource: Some(key),
            name: Some(value),
            ..base
        })
    });
    [user].into_iter().chain(uid).chain(groups).chain(extra)
}

/// The identity that acting as `whom` gives: with the groups that every user of that kind is in, which kube-apiserver
/// adds likewise.
///
/// # Errors
/// The identity is too large with these groups.
pub(crate) fn complete(whom: Identity) -> Result<Identity, InvalidIdentity> {
    let mut groups = Vec::new();
    if let Some((namespace, _)) = service_account(whom.user()).filter(|_| whom.groups().is_empty()) {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    if whom.user() == ANONYMOUS {
        groups.push(UNAUTHENTICATED.to_owned());
    } else if !whom.is_in(AUTHENTICATED) && !whom.is_in(UNAUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    whom.with_groups(groups)
}

/// Who asks without any credential, where that is allowed at all: one user, in one group, who has no right but what rules
/// give to either.
#[must_use]
pub fn anonymous() -> Identity {
    #[expect(clippy::expect_used, reason = "both are short and have no control characters")]
    Identity::new(ANONYMOUS).and_then(|nobody| nobody.with_groups([UNAUTHENTICATED])).expect("a name and a group")
}

/// The namespace and the name of a service account, of a user name that is one.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let label = |text: &str| {
        text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    (label(namespace) && name.len() <= 253 && name.split('.').all(label)).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proper_names_are_service_accounts() {
        assert_eq!(service_account("system:serviceaccount:shop:till.one"), Some(("shop", "till.one")));
        for user in [
            "ann",
            "system:serviceaccount:shop",
            "system:serviceaccount:shop:",
            "system:serviceaccount::till",
            "system:serviceaccount:shop:till:x",
            "system:serviceaccount:Shop:till",
            "system:serviceaccount:sh.op:till",
        ] {
            assert_eq!(service_account(user), None, "{user}");
        }
    }

    #[test]
    fn groups_are_completed_as_kube_apiserver_does() {
        let groups = |user: &str, groups: &[&str]| {
            let whom = Identity::new(user).unwrap().with_groups(groups.iter().copied()).unwrap();
            complete(whom).unwrap().groups().join(" ")
        };
        assert_eq!(groups("ann", &[]), "system:authenticated");
        assert_eq!(groups("ann", &["a"]), "a system:authenticated");
        assert_eq!(groups("ann", &["system:unauthenticated"]), "system:unauthenticated");
        assert_eq!(groups("system:anonymous", &[]), "system:unauthenticated");
        assert_eq!(
            groups("system:serviceaccount:shop:till", &[]),
            "system:serviceaccounts system:serviceaccounts:shop system:authenticated"
        );
        assert_eq!(groups("system:serviceaccount:shop:till", &["a"]), "a system:authenticated");
    }
}

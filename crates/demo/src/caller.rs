//! As whom a request arrived: read from `Impersonate-*`, and from nothing else. Pure.

use std::collections::BTreeMap;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::answer::Failure;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATED: &str = "system:authenticated";

/// The user of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: String,
    groups: Vec<String>,
    uid: Option<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// Reads the impersonation headers.
    ///
    /// Without a user the request is refused: a real kube-apiserver would run it with the rights of the caller's own
    /// service account, which is just what must never happen to a user's request.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut users = headers.get_all(USER).iter();
        let user = match (users.next(), users.next()) {
            (Some(user), None) => text(user)?,
            (Some(_), Some(_)) => return Err(Failure::bad_request("several Impersonate-User headers")),
            (None, _) => return Err(unimpersonated()),
        };
        if user.is_empty() {
            return Err(unimpersonated());
        }
        let mut groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, _>>()?;
        // A kube-apiserver adds this group to every impersonated user as well.
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        let uid = headers.get(UID).map(text).transpose()?;
        Ok(Self { user, groups, uid, extra: extra(headers)? })
    }

    /// As `UserInfo` of `authentication.k8s.io/v1`.
    pub(crate) fn user_info(&self) -> Value {
        let mut info = json!({ "username": self.user, "groups": self.groups });
        if let Some(uid) = &self.uid {
            info["uid"] = json!(uid);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}

fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut extra = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().push(text(value)?);
        }
    }
    Ok(extra)
}

fn text(value: &http::HeaderValue) -> Result<String, Failure> {
    // Kubernetes user names may hold any UTF-8, which Go's clients write as it is.
    String::from_utf8(value.as_bytes().to_vec())
        .map_err(|error| Failure::bad_request(format!("an impersonation header is not UTF-8: {error}")))
}

fn unimpersonated() -> Failure {
    Failure::forbidden(
        "the Moorline demo API answers only requests that say who they are for: there is no Impersonate-User header",
    )
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
            })
            .collect()
    }

    #[test]
    fn reads_who_the_request_is_for() {
        let caller = Caller::read(&headers(&[
            ("Impersonate-User", "zoë"),
            ("Impersonate-Group", "dev"),
            ("Impersonate-Group", "ops"),
            ("Impersonate-Uid", "42"),
            ("Impersonate-Extra-Example.com%2fTeam", "red"),
        ]))
        .unwrap();
        assert_eq!(
            caller.user_info(),
            json!({"username": "zoë", "uid": "42", "groups": ["dev", "ops", AUTHENTICATED],
                   "extra": {"example.com/team": ["red"]}})
        );
    }

    #[test]
    fn nobody_is_refused() {
        for list in [vec![], vec![("impersonate-user", "")], vec![("impersonate-group", "dev")]] {
            assert_eq!(Caller::read(&headers(&list)).unwrap_err().code, 403, "{list:?}");
        }
        let twice = headers(&[("impersonate-user", "a"), ("impersonate-user", "b")]);
        assert_eq!(Caller::read(&twice).unwrap_err().code, 400);
    }
}

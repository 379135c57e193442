//! Where things are on the gateway.

use moorline_model::ClusterName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What all paths of the management API begin with.
pub const PREFIX: &str = "/v1";

/// `GET` answers with a [`crate::ManagedClusterList`]; `POST` takes a [`crate::CreateCluster`] and answers with 201 and
/// what was asked for: a [`crate::CreatedCluster`], [`crate::CreatedJoinToken`], [`crate::JoinableCluster`] or
/// [`crate::BroughtCluster`].
pub const CLUSTERS: &str = "/v1/clusters";

/// `POST` takes a [`crate::AccessQuestion`] and answers with a [`crate::AccessAnswer`].
pub const ACCESS_REVIEWS: &str = "/v1/accessreviews";

/// `GET` answers with a [`crate::UserList`]; `POST` takes a [`crate::CreateUser`] and answers with 201 and a
/// [`crate::CreatedUser`].
pub const USERS: &str = "/v1/users";

/// In the query of [`user`]: only the token of this id.
pub const TOKEN_ID: &str = "tokenId";

/// `GET` answers with a [`crate::JoinTokenList`].
pub const JOIN_TOKENS: &str = "/v1/jointokens";

/// In the query of [`join_token`]: the token of this id.
pub const JOIN_TOKEN_ID: &str = "id";

/// `GET` answers with a [`crate::ServerStatus`].
pub const STATUS: &str = "/v1/status";

/// `GET` answers with a [`crate::Version`].
pub const VERSION: &str = "/v1/version";

/// The tunnel's authority. `GET` answers with a [`crate::AuthoritiesStatus`], as do `POST` to `/rotate`, `/abort` and
/// `/finish` below; the last takes a [`crate::FinishRotation`].
pub const TUNNEL_AUTHORITY: &str = "/v1/certificateauthorities/tunnel";

/// The end of a cluster's certificates. `POST` answers with a `Status`.
#[must_use]
pub fn revocation(name: &ClusterName) -> String {
    format!("{CLUSTERS}/{name}/revocation")
}

/// One cluster. `GET` answers with a [`crate::ManagedCluster`], `DELETE` with a `Status`.
#[must_use]
pub fn cluster(name: &ClusterName) -> String {
    format!("{CLUSTERS}/{name}")
}

/// What happened to one cluster. `GET` answers with a [`crate::ClusterEventList`].
#[must_use]
pub fn events(name: &ClusterName) -> String {
    format!("{CLUSTERS}/{name}/events")
}

/// The certificate of a cluster that has none. `POST` answers with 201 and a [`crate::CreatedCluster`], with 200 and a
/// [`crate::BroughtCluster`] where a Guardian's owner brought one, and with 409 where the cluster has one.
#[must_use]
pub fn enrolment(name: &ClusterName) -> String {
    format!("{CLUSTERS}/{name}/enrolment")
}

/// The next agent of a cluster, beside the one before. `POST` takes a [`crate::MigrateCluster`] and answers with 201 and a
/// [`crate::CreatedCluster`].
#[must_use]
pub fn migration(name: &ClusterName) -> String {
    format!("{CLUSTERS}/{name}/migration")
}

/// The join tokens of one cluster. `POST` takes a [`crate::CreateJoinToken`] and answers with 201 and a
/// [`crate::CreatedJoinToken`]; `DELETE` with [`JOIN_TOKEN_ID`] answers with a `Status`.
#[must_use]
pub fn join_token(cluster: &ClusterName) -> String {
    format!("{CLUSTERS}/{cluster}/token")
}

/// One user. `DELETE` answers with a [`crate::RevokedUser`].
#[must_use]
pub fn user(name: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');
    format!("{USERS}/{}", utf8_percent_encode(name, KEPT))
}

/// What a kubeconfig points at: the cluster's own API is below.
#[must_use]
pub fn kubernetes(name: &ClusterName) -> String {
    format!("/clusters/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_below_the_prefix() {
        let east = "east".parse().unwrap();
        for path in [CLUSTERS, ACCESS_REVIEWS, USERS, STATUS, VERSION, &cluster(&east), &enrolment(&east), &user("x")] {
            assert!(path.starts_with(PREFIX), "{path}");
        }
        assert_eq!(cluster(&east), "/v1/clusters/east");
        assert_eq!(kubernetes(&east), "/clusters/east");
        assert_eq!(user("a/../é@b.c?"), "/v1/users/a%2F%2E%2E%2F%C3%A9%40b%2Ec%3F");
    }
}

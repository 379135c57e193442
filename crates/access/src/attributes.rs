//! What a rule is asked about.

use moorline_model::ClusterName;

/// What somebody wants to do, in the terms of Kubernetes RBAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `get`, `list`, `create`, `impersonate`, …
    pub verb: &'a str,
    /// The API group; empty for Kubernetes' core.
    pub api_group: &'a str,
    /// The resource, in the plural.
    pub resource: &'a str,
    /// The part of the resource, such as `log`.
    pub subresource: Option<&'a str>,
    /// The namespace, where there is one. Cluster roles apply to all.
    pub namespace: Option<&'a str>,
    /// The name of the one object, where there is one.
    pub name: Option<&'a str>,
    /// The path of a request that is not about a resource. The resource is then left out of account.
    pub non_resource_path: Option<&'a str>,
}

/// What this project asks rules about, besides impersonation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Send requests to a cluster: `get` on `managedclusters/NAME`, as in Calico Enterprise.
    Reach(&'a ClusterName),
    /// Manage clusters: a verb on `managedclusters`.
    Administer {
        /// `list`, `get`, `create`, `update`, `delete`.
        verb: &'a str,
        /// The cluster; none for all of them.
        name: Option<&'a ClusterName>,
    },
    /// Manage the join tokens of clusters: a verb on `managedclusters/token`, as Kubernetes has `serviceaccounts/token`.
    JoinTokens {
        /// `list`, `create`, `delete`.
        verb: &'a str,
        /// The cluster; none for all of them.
        name: Option<&'a ClusterName>,
    },
    /// Look at and rotate certificate authorities: a verb on `certificateauthorities`.
    Authorities {
        /// `get`, `update`.
        verb: &'a str,
        /// Which.
        name: &'a str,
    },
    /// Manage the users of the table of static tokens: a verb on `users`, which in this group are not those that
    /// Kubernetes' core has for impersonation.
    Users {
        /// `list`, `create`, `delete`.
        verb: &'a str,
        /// The user; none for all of them.
        name: Option<&'a str>,
    },
}

impl<'a> Action<'a> {
    /// The resource under which clusters stand in rules.
    pub const RESOURCE: &'static str = "managedclusters";

    /// The part of a cluster under which its join tokens stand in rules.
    pub const TOKEN: &'static str = "token";

    /// The resource under which certificate authorities stand in rules.
    pub const AUTHORITIES: &'static str = "certificateauthorities";

    /// The resource under which users of the table of static tokens stand in rules.
    pub const USERS: &'static str = "users";

    /// What a rule is asked, with the API group that the server is configured with.
    #[must_use]
    pub fn attributes(self, api_group: &'a str) -> Attributes<'a> {
        let (verb, resource, name) = match self {
            Self::Reach(cluster) => ("get", Self::RESOURCE, Some(cluster.as_str())),
            Self::Administer { verb, name } => (verb, Self::RESOURCE, name.map(ClusterName::as_str)),
            Self::JoinTokens { verb, name } => (verb, Self::RESOURCE, name.map(ClusterName::as_str)),
            Self::Authorities { verb, name } => (verb, Self::AUTHORITIES, Some(name)),
            Self::Users { verb, name } => (verb, Self::USERS, name),
        };
        let subresource = matches!(self, Self::JoinTokens { .. }).then_some(Self::TOKEN);
        Attributes { verb, api_group, resource, subresource, name, ..Attributes::default() }
    }
}

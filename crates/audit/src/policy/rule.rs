//! One rule, matched as `k8s.io/apiserver/pkg/audit/policy` does.

use moorline_access::RequestAttributes;

use super::Question;
use crate::{Level, Stages};

/// Whom and what a rule is about; an empty list is about all.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) level: Level,
    pub(super) omitted: Stages,
    pub(super) users: Vec<String>,
    pub(super) user_groups: Vec<String>,
    pub(super) verbs: Vec<String>,
    pub(super) resources: Vec<Resources>,
    pub(super) namespaces: Vec<String>,
    pub(super) non_resource_urls: Vec<String>,
    pub(super) clusters: Vec<String>,
}

/// Resources of one API group.
#[derive(Clone, Debug)]
pub(super) struct Resources {
    pub(super) group: String,
    pub(super) resources: Vec<String>,
    pub(super) names: Vec<String>,
}

const ALL: &str = "*";

impl Rule {
    pub(super) fn matches(&self, question: &Question<'_>) -> bool {
        let Question { user, request, cluster } = *question;
        let is_user = |user: &str| self.users.iter().any(|own| own == user);
        let open = |list: &[String], asked: &str| list.is_empty() || list.iter().any(|own| own == asked);
        (self.users.is_empty() || user.is_some_and(|user| is_user(user.user())))
            && (self.user_groups.is_empty()
                || user.is_some_and(|user| self.user_groups.iter().any(|group| user.is_in(group))))
            && open(&self.verbs, &request.verb)
            && open(&self.clusters, cluster)
            && self.matches_what(request)
    }

    fn matches_what(&self, request: &RequestAttributes) -> bool {
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.matches_resource(request);
        }
        if !self.non_resource_urls.is_empty() {
            let matches = |url: &String| matches_path(url, &request.path);
            return !request.is_resource && self.non_resource_urls.iter().any(matches);
        }
        true
    }

    /// What has no namespace is in the one without a name.
    fn matches_resource(&self, request: &RequestAttributes) -> bool {
        let namespace = request.namespace.as_deref().unwrap_or_default();
        request.is_resource
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|own| own == namespace))
            && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.matches(request)))
    }

    /// Whether it is only about what may run long: watches, what streams by its nature, the old verb `proxy`.
    pub(super) fn is_of_long_ones(&self) -> bool {
        let long_verb = |verb: &String| matches!(verb.as_str(), "watch" | "proxy");
        let long_part = |resource: &String| {
            let part = resource.split_once('/').map(|(_of, part)| part);
            matches!(part, Some("exec" | "attach" | "portforward" | "proxy" | "log"))
        };
        let long_resources = |of: &Resources| !of.resources.is_empty() && of.resources.iter().all(long_part);
        !self.verbs.is_empty() && self.verbs.iter().all(long_verb)
            || !self.resources.is_empty() && self.resources.iter().all(long_resources)
    }
}

impl Resources {
    fn matches(&self, request: &RequestAttributes) -> bool {
        if self.group != request.api_group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let name = request.name.as_deref().unwrap_or_default();
        (self.names.is_empty() || self.names.iter().any(|own| own == name))
            && self.resources.iter().any(|own| matches_resource(own, request))
    }
}

/// `*`, `RESOURCE`, `RESOURCE/PART`, `*/PART` or `RESOURCE/*`, the last for the resource itself as well.
fn matches_resource(own: &str, request: &RequestAttributes) -> bool {
    let part = request.subresource.as_deref().unwrap_or_default();
    match own.split_once('/') {
        _ if own == ALL => true,
        None => part.is_empty() && own == request.resource,
        Some((ALL, own)) if !part.is_empty() && own == part => true,
        Some((resource, own)) => resource == request.resource && (own == ALL || !part.is_empty() && own == part),
    }
}

fn matches_path(url: &str, path: &str) -> bool {
    url == path || url.ends_with('*') && path.starts_with(url.trim_end_matches('*'))
}

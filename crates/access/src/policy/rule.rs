//! One rule of a role, matched as `k8s.io/kubernetes/pkg/apis/rbac/v1` does.

use crate::Attributes;

/// What a rule allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) verbs: Vec<String>,
    pub(super) api_groups: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) resource_names: Vec<String>,
    pub(super) non_resource_urls: Vec<String>,
}

const ALL: &str = "*";

impl Rule {
    pub(super) fn covers(&self, what: &Attributes<'_>) -> bool {
        if !holds(&self.verbs, what.verb) {
            return false;
        }
        if let Some(path) = what.non_resource_path {
            return self.non_resource_urls.iter().any(|rule| covers_path(rule, path));
        }
        holds(&self.api_groups, what.api_group)
            && self.resources.iter().any(|rule| covers_resource(rule, what))
            && self.covers_name(what.name)
    }

    /// A rule without names covers all; one with names covers nothing that has none, such as a list, save where one of
    /// its names is empty.
    fn covers_name(&self, name: Option<&str>) -> bool {
        let name = name.unwrap_or_default();
        self.resource_names.is_empty() || self.resource_names.iter().any(|own| own == name)
    }
}

fn holds(rules: &[String], asked: &str) -> bool {
    rules.iter().any(|rule| rule == ALL || rule == asked)
}

/// Whether a rule's resource is the one that is asked about, `RESOURCE` or `RESOURCE/PART` as one text, or `*/PART`
/// with its part.
fn covers_resource(rule: &str, what: &Attributes<'_>) -> bool {
    if rule == ALL {
        return true;
    }
    match what.subresource.filter(|part| !part.is_empty()) {
        None => rule == what.resource,
        Some(asked) => {
            let part_of = |resource: &str| rule.strip_prefix(resource)?.strip_prefix('/');
            part_of(ALL) == Some(asked) || part_of(what.resource) == Some(asked)
        }
    }
}

fn covers_path(rule: &str, path: &str) -> bool {
    rule == path || rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    fn rule(verbs: &str, groups: &[&str], resources: &str, names: &str) -> Rule {
        Rule {
            verbs: strings(verbs),
            api_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            resources: strings(resources),
            resource_names: strings(names),
            non_resource_urls: Vec::new(),
        }
    }

    /// `verb group resource name`, with `core` for the empty group and `-` for no name.
    fn covers(rule: &Rule, request: &str) -> bool {
        let words: Vec<&str> = request.split(' ').collect();
        let [verb, group, resource, name] = words[..] else { panic!("{request}") };
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, part)) => (resource, Some(part)),
            None => (resource, None),
        };
        rule.covers(&Attributes {
            verb,
            api_group: if group == "core" { "" } else { group },
            resource,
            subresource,
            name: (name != "-").then_some(name),
            ..Attributes::default()
        })
    }

    #[test]
    fn resources_match_as_in_kubernetes() {
        let pods = rule("get list", &[""], "pods", "");
        let logs = rule("get", &[""], "pods/log", "");
        let scales = rule("update", &["*"], "*/scale", "");
        let all = rule("*", &["*"], "*", "");
        let named = rule("get", &["apps"], "deployments", "web api");
        let nameless = Rule { resource_names: vec![String::new()], ..named.clone() };
        for (rule, request, expected) in [
            (&pods, "get core pods a", true),
            (&pods, "list core pods -", true),
            (&pods, "watch core pods -", false),
            (&pods, "get core pods/log a", false),
            (&pods, "get core services a", false),
            (&pods, "get apps pods a", false),
            (&pods, "GET core pods a", false),
            (&logs, "get core pods/log a", true),
            (&logs, "get core pods a", false),
            (&logs, "get core pods/exec a", false),
            (&scales, "update apps deployments/scale a", true),
            (&scales, "update x.io things/scale a", true),
            (&scales, "update apps deployments a", false),
            (&scales, "update apps deployments/status a", false),
            (&all, "anything any.io things/part a", true),
            (&all, "deletecollection core pods -", true),
            (&named, "get apps deployments web", true),
            (&named, "get apps deployments db", false),
            (&named, "get apps deployments -", false),
            (&nameless, "get apps deployments -", true),
            (&nameless, "get apps deployments web", false),
        ] {
            assert_eq!(covers(rule, request), expected, "{rule:?} {request}");
        }
    }

    #[test]
    fn paths_match_as_in_kubernetes() {
        let rule = |url: &str| Rule { verbs: strings("get"), non_resource_urls: strings(url), ..Rule::default() };
        for (url, path, expected) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("/healthz/*", "/healthz", false),
            ("/healthz*", "/healthz", true),
            ("*", "/anything", true),
            ("/a*z", "/abcz", false),
            ("/a/**", "/a/b", true),
        ] {
            let what = Attributes { verb: "get", non_resource_path: Some(path), ..Attributes::default() };
            assert_eq!(rule(url).covers(&what), expected, "{url} {path}");
        }
    }

    #[test]
    fn rules_for_resources_and_for_paths_stay_apart() {
        let all_resources = rule("*", &["*"], "*", "");
        let what = Attributes { verb: "get", non_resource_path: Some("/metrics"), ..Attributes::default() };
        assert!(!all_resources.covers(&what));
        let all_paths = Rule { verbs: strings("*"), non_resource_urls: strings("*"), ..Rule::default() };
        assert!(!covers(&all_paths, "get core pods a"));
    }
}

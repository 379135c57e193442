//! The rights that an agent needs in its cluster, as Kubernetes RBAC: what its configuration lets through, and nothing
//! more.
//!
//! Made from the same flags as the agent itself; printed by `moorline agent rbac`, and given to a real kube-apiserver by
//! tests. Two grammars: that of impersonation since ever (verb `impersonate`), and that of [constrained impersonation],
//! which also bounds what may be done while acting as somebody.
//!
//! RBAC knows names and no beginnings of names, and has no denials. Where the configuration says more than RBAC can, the
//! agent alone holds it, and [`Rendered::remarks`] tells so.
//!
//! [constrained impersonation]: https://kep.k8s.io/5284

mod objects;
mod rules;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    config::{ConfigError, Problems, RawConfig, narrowing},
    rbac::{
        objects::{Binding, Role},
        rules::{Accounts, Grammar, Rule},
    },
};

/// What Kubernetes knows requests by; other verbs, such as `bind`, are asked of the one who is acted as only.
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// For whom the rights are, and in which grammar.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What the roles and bindings are called.
    pub name: String,
    /// The agent's service account: namespace and name.
    pub service_account: (String, String),
    /// The grammar of constrained impersonation, and what it lets users do.
    pub constrained: Option<Constrained>,
}

/// What users may do through the agent at most, whatever they may by themselves.
#[derive(Clone, Debug, Default)]
pub struct Constrained {
    /// Verbs of requests; all where there is none.
    pub verbs: Vec<String>,
    /// Resources as `RESOURCE[.GROUP][/PART]`; all where there is none, their parts included, such as `pods/exec`, which
    /// a WebSocket opens by `get`.
    pub resources: Vec<String>,
}

/// Objects to be applied in the managed cluster, by somebody who has all these rights.
#[derive(Debug)]
pub struct Rendered {
    /// Roles and bindings.
    pub objects: Vec<Object>,
    /// What the objects cannot say.
    pub remarks: Vec<String>,
}

/// A role or a binding, as Kubernetes reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Object {
    /// A `ClusterRole`, or a `Role` of one namespace.
    Role(Role),
    /// Its binding.
    Binding(Binding),
}

/// The rights that an agent with these flags needs.
///
/// # Errors
/// All that is wrong with those flags that say whom the server may act as, or cannot be said in the wanted grammar.
pub fn render(raw: &RawConfig, wanted: &Wanted) -> Result<Rendered, ConfigError> {
    let mut problems = Problems::default();
    let narrowing = narrowing::resolve(raw, &mut Vec::new(), &mut problems);
    let grammar = grammar(wanted, narrowing.passed.extra.as_ref(), &mut problems);
    problems.into_result()?;
    let mut remarks = Vec::new();
    let rules = grammar.rules(&narrowing, &mut remarks);
    let accounts = grammar.accounts(&narrowing, &mut remarks);
    Ok(Rendered { objects: bound(wanted, rules, accounts), remarks })
}

fn bound(wanted: &Wanted, mut rules: Vec<Rule>, accounts: Accounts) -> Vec<Object> {
    let mut namespaced: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
    match accounts {
        Accounts::None => {}
        Accounts::All(rule) => rules.push(rule),
        Accounts::Of(namespaces) => namespaced = namespaces,
    }
    rules.extend(Rule::of_the_agent_itself());
    let mut objects = objects::pair(wanted, None, rules).to_vec();
    for (namespace, rules) in namespaced {
        objects.extend(objects::pair(wanted, Some(&namespace), rules));
    }
    objects
}

fn grammar(wanted: &Wanted, extra: Option<&std::collections::BTreeSet<String>>, problems: &mut Problems) -> Grammar {
    let Some(Constrained { verbs, resources }) = &wanted.constrained else { return Grammar::Plain };
    for verb in verbs.iter().filter(|verb| !VERBS.contains(&verb.as_str())) {
        problems.add("--verb", format!("{verb:?} is no verb of a request"), format!("choose of {}", VERBS.join(", ")));
    }
    match extra {
        None => problems.add(
            "--constrained",
            "has no way to say \"all extra keys\"",
            "name those to pass on by --extra-key, to the agent as well, or give both --no-extra",
        ),
        Some(keys) => {
            for key in keys.iter().filter(|key| !key.contains('/')) {
                let remedy = "leave it out: constrained impersonation takes keys such as example.com/team only";
                problems.add("--extra-key", format!("{key:?} has no domain"), remedy);
            }
        }
    }
    let verbs = if verbs.is_empty() { VERBS.map(str::to_owned).to_vec() } else { verbs.clone() };
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for text in resources {
        let (resource, group) = resource(text);
        if resource.split('/').any(str::is_empty) {
            problems.add("--resource", format!("{text:?} is no resource"), "write one such as pods/log or jobs.batch");
        }
        groups.entry(group).or_default().push(resource);
    }
    if groups.is_empty() {
        groups.insert("*".to_owned(), vec!["*".to_owned()]);
    }
    Grammar::Constrained { verbs, groups }
}

/// Resource with its part, and group, of `RESOURCE[.GROUP][/PART]`.
fn resource(text: &str) -> (String, String) {
    let (whole, part) = text.split_once('/').map_or((text, None), |(whole, part)| (whole, Some(part)));
    let (name, group) = whole.split_once('.').unwrap_or((whole, ""));
    (part.map_or_else(|| name.to_owned(), |part| format!("{name}/{part}")), group.to_owned())
}

#[cfg(test)]
mod tests;

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
    /// The grammar of constrained impersonation, with the verbs that users may use through the agent; all for none.
    pub constrained: Option<Vec<String>>,
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
    let Some(verbs) = &wanted.constrained else { return Grammar::Plain };
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
    let all = || VERBS.map(str::to_owned).to_vec();
    Grammar::Constrained(if verbs.is_empty() { all() } else { verbs.clone() })
}

#[cfg(test)]
mod tests;

//! The rights that an agent needs in its cluster, as Kubernetes RBAC: what its configuration lets through, and nothing
//! more.
//!
//! Made from the same narrowing as the agent itself uses; a part of its manifest, printed by `moorline agent rbac`, and given to a real kube-apiserver by
//! tests. Two grammars: that of impersonation since ever (verb `impersonate`), and that of [constrained impersonation],
//! which also bounds what may be done while acting as somebody.
//!
//! RBAC knows names and no beginnings of names, and has no denials. Where the configuration says more than RBAC can, the
//! agent alone holds it, and [`Rendered::remarks`] tells so.
//!
//! [constrained impersonation]: https://kep.k8s.io/5284

mod rules;

use std::collections::{BTreeMap, BTreeSet};

use moorline_impersonation::Narrowing;
use thiserror::Error;

use crate::{
    object::{list, map, object},
    rbac::rules::{Accounts, Grammar, Rule},
    yaml::Node,
};

const API_GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

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
    pub objects: Vec<Node>,
    /// What the objects cannot say.
    pub remarks: Vec<String>,
}

/// What cannot be said in the grammar of constrained impersonation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unsayable {
    /// A verb that no request has.
    #[error("--verb: {0:?} is no verb of a request; choose of {all}", all = VERBS.join(", "))]
    Verb(String),
    /// Something that names no resource.
    #[error("--resource: {0:?} is no resource; write one such as pods/log or jobs.batch")]
    Resource(String),
    /// All extra keys are to be passed on.
    #[error(
        "--constrained: has no way to say \"all extra keys\"; name those to pass on by --extra-key, to the agent as \
             well, or give both --no-extra"
    )]
    AllExtraKeys,
    /// An extra key without a domain.
    #[error(
        "--extra-key: {0:?} has no domain; leave it out: constrained impersonation takes keys such as \
             example.com/team only"
    )]
    ExtraKey(String),
}

/// The rights that an agent needs that lets the server act as these.
///
/// # Errors
/// All that cannot be said in the wanted grammar.
pub fn render(narrowing: &Narrowing, wanted: &Wanted) -> Result<Rendered, Vec<Unsayable>> {
    let grammar = grammar(wanted, narrowing.passed.extra.as_ref())?;
    let mut remarks = Vec::new();
    let rules = grammar.rules(narrowing, &mut remarks);
    let accounts = grammar.accounts(narrowing, &mut remarks);
    Ok(Rendered { objects: bound(wanted, rules, accounts), remarks })
}

/// The rights of an account to act as these and no others; nothing else.
pub(crate) fn to_act(narrowing: &Narrowing, name: &str, service_account: (&str, &str)) -> Vec<Node> {
    let mut unsaid = Vec::new();
    let mut rules = Grammar::Plain.rules(narrowing, &mut unsaid);
    let mut namespaced = BTreeMap::new();
    match Grammar::Plain.accounts(narrowing, &mut unsaid) {
        Accounts::None => {}
        Accounts::All(rule) => rules.push(rule),
        Accounts::Of(namespaces) => namespaced = namespaces,
    }
    of_account(name, service_account, rules, namespaced)
}

/// A role with these rules, in a namespace or for the whole cluster, and its binding to the agent's service account.
pub(crate) fn pair(name: &str, account: (&str, &str), namespace: Option<&str>, rules: Node) -> [Node; 2] {
    let (kind, binding) =
        if namespace.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
    let mut role = object(API_VERSION, kind, name, namespace);
    role.set("rules", rules);
    let mut bound = object(API_VERSION, binding, name, namespace);
    bound.set("roleRef", map! { "apiGroup" => API_GROUP, "kind" => kind, "name" => name });
    let subject = map! { "kind" => "ServiceAccount", "namespace" => account.0, "name" => account.1 };
    bound.set("subjects", list![subject]);
    [role, bound]
}

fn bound(wanted: &Wanted, mut rules: Vec<Rule>, accounts: Accounts) -> Vec<Node> {
    let mut namespaced: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
    match accounts {
        Accounts::None => {}
        Accounts::All(rule) => rules.push(rule),
        Accounts::Of(namespaces) => namespaced = namespaces,
    }
    rules.extend(Rule::of_the_agent_itself());
    let account = (wanted.service_account.0.as_str(), wanted.service_account.1.as_str());
    of_account(&wanted.name, account, rules, namespaced)
}

fn of_account(
    name: &str,
    account: (&str, &str),
    rules: Vec<Rule>,
    namespaced: BTreeMap<String, Vec<Rule>>,
) -> Vec<Node> {
    let pair = |namespace: Option<&str>, rules: Vec<Rule>| pair(name, account, namespace, rules.into());
    let mut objects = pair(None, rules).to_vec();
    for (namespace, rules) in namespaced {
        objects.extend(pair(Some(&namespace), rules));
    }
    objects
}

fn grammar(wanted: &Wanted, extra: Option<&BTreeSet<String>>) -> Result<Grammar, Vec<Unsayable>> {
    let Some(Constrained { verbs, resources }) = &wanted.constrained else { return Ok(Grammar::Plain) };
    let strange = verbs.iter().filter(|verb| !VERBS.contains(&verb.as_str()));
    let mut problems: Vec<Unsayable> = strange.cloned().map(Unsayable::Verb).collect();
    match extra {
        None => problems.push(Unsayable::AllExtraKeys),
        Some(keys) => problems.extend(keys.iter().filter(|key| !key.contains('/')).cloned().map(Unsayable::ExtraKey)),
    }
    let verbs = if verbs.is_empty() { VERBS.map(str::to_owned).to_vec() } else { verbs.clone() };
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for text in resources {
        let (resource, group) = resource(text);
        if resource.split('/').any(str::is_empty) {
            problems.push(Unsayable::Resource(text.clone()));
        }
        groups.entry(group).or_default().push(resource);
    }
    if groups.is_empty() {
        groups.insert("*".to_owned(), vec!["*".to_owned()]);
    }
    if problems.is_empty() { Ok(Grammar::Constrained { verbs, groups }) } else { Err(problems) }
}

/// Resource with its part, and group, of `RESOURCE[.GROUP][/PART]`.
fn resource(text: &str) -> (String, String) {
    let (whole, part) = text.split_once('/').map_or((text, None), |(whole, part)| (whole, Some(part)));
    let (name, group) = whole.split_once('.').unwrap_or((whole, ""));
    (part.map_or_else(|| name.to_owned(), |part| format!("{name}/{part}")), group.to_owned())
}

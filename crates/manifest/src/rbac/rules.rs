//! Which rules a [`Narrowing`] makes, in each of the two grammars.
//!
//! An empty list of resource names means all names to Kubernetes: a rule about nobody must not be made.

use std::collections::{BTreeMap, BTreeSet};

use moorline_impersonation::{Name, Narrowing};

use crate::yaml::Node;

const CORE: &str = "";
const AUTHENTICATION: &str = "authentication.k8s.io";
const IMPERSONATE: &str = "impersonate";
const ACCOUNT: &str = "system:serviceaccount:";

/// A rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
    non_resource_urls: Vec<&'static str>,
    verbs: Vec<String>,
}

/// How Kubernetes is told.
pub(super) enum Grammar {
    /// `impersonate`: whoever is acted as may do all they may.
    Plain,
    /// Only this: verbs, and resources by API group.
    Constrained { verbs: Vec<String>, groups: BTreeMap<String, Vec<String>> },
}

/// The rules about service accounts, which live in namespaces.
pub(super) enum Accounts {
    None,
    All(Rule),
    Of(BTreeMap<String, Vec<Rule>>),
}

/// What of some names a rule can say.
enum Said {
    Nobody,
    These(Vec<String>),
    Everybody,
}

impl Rule {
    fn new(group: &str, resource: &str, verb: &str) -> Self {
        let (api_groups, resources, verbs) = (vec![group.to_owned()], vec![resource.to_owned()], vec![verb.to_owned()]);
        Self { api_groups, resources, verbs, ..Self::default() }
    }

    /// About these names, and none at all where there is none.
    fn about(mut self, said: Said) -> Option<Self> {
        match said {
            Said::Nobody => return None,
            Said::These(names) => self.resource_names = names,
            Said::Everybody => {}
        }
        Some(self)
    }

    /// What the agent reads as itself: what it tells the server of its cluster.
    pub(super) fn of_the_agent_itself() -> [Self; 2] {
        let mut namespace = Self::new(CORE, "namespaces", "get");
        namespace.resource_names = vec!["kube-system".to_owned()];
        let probes =
            Self { non_resource_urls: vec!["/readyz", "/version"], verbs: vec!["get".to_owned()], ..Self::default() };
        [namespace, probes]
    }
}

impl From<Rule> for Node {
    fn from(rule: Rule) -> Self {
        let paths = rule.non_resource_urls.into_iter().map(str::to_owned).collect();
        let lists = [
            ("apiGroups", rule.api_groups),
            ("resources", rule.resources),
            ("resourceNames", rule.resource_names),
            ("nonResourceURLs", paths),
            ("verbs", rule.verbs),
        ];
        let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
        Self::Map(lists.map(|(name, list)| (name.to_owned(), list.into())).collect())
    }
}

impl Grammar {
    /// The rules about everybody but service accounts.
    pub(super) fn rules(&self, narrowing: &Narrowing, remarks: &mut Vec<String>) -> Vec<Rule> {
        let (group, verb) = match self {
            Self::Plain => (CORE, IMPERSONATE),
            Self::Constrained { .. } => (AUTHENTICATION, "impersonate:user-info"),
        };
        let users = narrowing.possible_users().into_iter().filter(|name| !is_account(name)).collect();
        let users = say("user", &users, &narrowing.deny_users, remarks);
        let groups = say("group", &narrowing.possible_groups(), &narrowing.deny_groups, remarks);
        let mut rules: Vec<Rule> = Rule::new(group, "users", verb).about(users).into_iter().collect();
        rules.extend(Rule::new(group, "groups", verb).about(groups));
        let mut rest: Vec<String> = narrowing.passed.uid.then(|| "uids".to_owned()).into_iter().collect();
        match &narrowing.passed.extra {
            Some(keys) => rest.extend(keys.iter().map(|key| format!("userextras/{key}"))),
            // Kubernetes reads `userextras/*` as one key of that name.
            None => rest = vec!["*".to_owned()],
        }
        if !rest.is_empty() {
            rules.push(Rule { resources: rest, ..Rule::new(AUTHENTICATION, "", verb) });
        }
        if let Self::Constrained { verbs, groups } = self {
            rules.extend(on(verbs, groups));
            if narrowing.deny_groups.iter().all(|rule| rule != "system:masters") {
                remarks.push("constrained impersonation never lets anybody act in system:masters".to_owned());
            }
        }
        rules
    }

    /// The rules about service accounts.
    pub(super) fn accounts(&self, narrowing: &Narrowing, remarks: &mut Vec<String>) -> Accounts {
        let names = narrowing.possible_users_within(ACCOUNT);
        if names.is_empty() {
            return Accounts::None;
        }
        if matches!(self, Self::Constrained { .. }) {
            let remark = "constrained impersonation lets nobody act as a service account in groups that are named, and \
                          requests that come through the tunnel name them: service accounts of the management side are \
                          refused by the kube-apiserver, unless --user-prefix or --map-user gives them other names";
            remarks.push(remark.to_owned());
            return Accounts::None;
        }
        let rule = || Rule::new(CORE, "serviceaccounts", IMPERSONATE);
        let mut namespaces: BTreeMap<String, BTreeSet<Name>> = BTreeMap::new();
        for name in &names {
            let (Name::Beginning(text) | Name::Exactly(text)) = name;
            let Some((namespace, account)) = text.strip_prefix(ACCOUNT).and_then(|text| text.split_once(':')) else {
                if matches!(name, Name::Exactly(_)) {
                    // No proper service account: to Kubernetes a user like others, whom nobody is.
                    continue;
                }
                let said = say("service account", &names, &narrowing.deny_users, remarks);
                return rule().about(said).map_or(Accounts::None, Accounts::All);
            };
            let account = match name {
                Name::Beginning(_) => Name::Beginning(account.to_owned()),
                Name::Exactly(_) => Name::Exactly(account.to_owned()),
            };
            namespaces.entry(namespace.to_owned()).or_default().insert(account);
        }
        let of = namespaces.into_iter().filter_map(|(namespace, names)| {
            let what = format!("service account of {namespace}");
            let said = say(&what, &names, &[], remarks);
            rule().about(said).map(|rule| (namespace, vec![rule]))
        });
        Accounts::Of(of.collect())
    }
}

fn is_account(name: &Name) -> bool {
    let (Name::Beginning(text) | Name::Exactly(text)) = name;
    text.starts_with(ACCOUNT)
}

/// These names as a rule can say them; what it cannot say becomes a remark.
fn say(what: &str, names: &BTreeSet<Name>, denied: &[String], remarks: &mut Vec<String>) -> Said {
    let exact: Option<Vec<String>> = names
        .iter()
        .map(|name| match name {
            Name::Exactly(name) => Some(name.clone()),
            Name::Beginning(_) => None,
        })
        .collect();
    match exact {
        Some(names) if names.is_empty() => Said::Nobody,
        Some(names) => Said::These(names),
        None => {
            let beginnings: Vec<_> = names
                .iter()
                .filter_map(|name| match name {
                    Name::Beginning(text) if !["", ACCOUNT].contains(&text.as_str()) => Some(format!("{text}*")),
                    Name::Beginning(_) | Name::Exactly(_) => None,
                })
                .collect();
            if !beginnings.is_empty() {
                let beginnings = beginnings.join(", ");
                remarks
                    .push(format!("RBAC cannot say {what} {beginnings}: it allows every {what}, the agent only these"));
            }
            if !denied.is_empty() && what != "service account" {
                let denied = denied.join(", ");
                remarks.push(format!("RBAC cannot deny, so the agent alone refuses {what} {denied}"));
            }
            Said::Everybody
        }
    }
}

/// What may be done while acting as somebody.
fn on(verbs: &[String], groups: &BTreeMap<String, Vec<String>>) -> Vec<Rule> {
    let verb = |verb: &str| format!("impersonate-on:user-info:{verb}");
    let methods = verbs.iter().flat_map(|verb| match verb.as_str() {
        "get" => &["get", "head", "options"][..],
        "create" => &["post"],
        "update" => &["put"],
        "patch" => &["patch"],
        "delete" => &["delete"],
        _of_resources_only => &[],
    });
    let resources = groups.iter().map(|(group, resources)| Rule {
        resources: resources.clone(),
        verbs: verbs.iter().map(|it| verb(it)).collect(),
        ..Rule::new(group, "", "")
    });
    let paths =
        Rule { non_resource_urls: vec!["*"], verbs: methods.map(|method| verb(method)).collect(), ..Rule::default() };
    resources.chain([paths]).filter(|rule| !rule.verbs.is_empty()).collect()
}

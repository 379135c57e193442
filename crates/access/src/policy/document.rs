//! From the text of a policy file to bindings with their rules.

use std::collections::HashMap;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Binding, rule::Rule, subject::Subject};
use crate::{Found, Object, Problems};

const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";

/// Bytes of a policy file: some ten thousand bindings, all of which are looked through for each decision.
const MAX_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn read(yaml: &str) -> Result<Vec<Binding>, Problems> {
    let mut found = Found::default();
    if yaml.len() > MAX_BYTES {
        found.add("file", format!("{} bytes", yaml.len()), format!("at most {MAX_BYTES} are supported"));
        return found.or(Vec::new());
    }
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    match serde_saphyr::from_multiple_with_options::<Spanned<Value>>(yaml, options) {
        Ok(documents) => {
            let mut objects = Objects::default();
            for (index, document) in documents.iter().enumerate() {
                let at = format!("document {} (line {})", index + 1, document.referenced.line());
                objects.read(at, &document.value, &mut found);
            }
            let bindings = objects.join(&mut found);
            found.or(bindings)
        }
        Err(error) => {
            found.add("file", error.to_string(), "correct the YAML");
            found.or(Vec::new())
        }
    }
}

#[derive(Default)]
struct Objects {
    roles: HashMap<String, Vec<Rule>>,
    bindings: Vec<Bound>,
}

/// A binding whose role is yet to be found.
struct Bound {
    name: String,
    subjects: Vec<Subject>,
    role: Option<String>,
    role_at: String,
}

impl Objects {
    fn read(&mut self, at: String, value: &Value, found: &mut Found) {
        let Some(object) = Object::open(at.clone(), value, found) else { return };
        let kind = object.one_of("kind", &["ClusterRole", "ClusterRoleBinding", "List"], found);
        let version = if kind == Some("List") { "v1" } else { VERSION };
        object.one_of("apiVersion", &[version], found);
        match kind {
            Some("ClusterRole") => self.read_role(at, value, found),
            Some("ClusterRoleBinding") => self.read_binding(at, value, found),
            Some(_) => {
                for (item, value) in object.list("items", found) {
                    self.read(item, value, found);
                }
            }
            None => {}
        }
    }

    fn read_role(&mut self, at: String, value: &Value, found: &mut Found) {
        const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "rules", "aggregationRule"];
        let Some(role) = Object::read(at, value, &FIELDS, found) else { return };
        if role.optional("aggregationRule").is_some() {
            found.add(role.at("aggregationRule"), "not supported here", "write the rules out");
        }
        let mut rules = Vec::new();
        for (at, value) in role.list("rules", found) {
            rules.extend(rule(at, value, found));
        }
        let Some(name) = name(&role, found) else { return };
        if self.roles.insert(name.to_owned(), rules).is_some() {
            found.add(
                role.at("metadata.name"),
                format!("a second ClusterRole {name:?}"),
                "merge the two or rename one",
            );
        }
    }

    fn read_binding(&mut self, at: String, value: &Value, found: &mut Found) {
        const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "roleRef", "subjects"];
        let Some(binding) = Object::read(at, value, &FIELDS, found) else { return };
        let role = binding.required("roleRef", found).and_then(|value| {
            let role = Object::read(binding.at("roleRef"), value, &["apiGroup", "kind", "name"], found)?;
            role.one_of("apiGroup", &[GROUP], found);
            role.one_of("kind", &["ClusterRole"], found);
            role.text("name", found)
        });
        let mut subjects = Vec::new();
        for (at, value) in binding.list("subjects", found) {
            subjects.extend(subject(at, value, found));
        }
        let Some(name) = name(&binding, found) else { return };
        if self.bindings.iter().any(|other| other.name == name) {
            let what = format!("a second ClusterRoleBinding {name:?}");
            found.add(binding.at("metadata.name"), what, "merge the two or rename one");
        }
        self.bindings.push(Bound {
            name: name.to_owned(),
            subjects,
            role: role.map(str::to_owned),
            role_at: binding.at("roleRef.name"),
        });
    }

    fn join(self, found: &mut Found) -> Vec<Binding> {
        let mut joined = Vec::new();
        for Bound { name, subjects, role, role_at } in self.bindings {
            let Some(role) = role else { continue };
            match self.roles.get(&role) {
                Some(rules) => joined.push(Binding {
                    subjects,
                    rules: rules.clone(),
                    title: format!("ClusterRole {role} via ClusterRoleBinding {name}"),
                }),
                None => {
                    found.add(role_at, format!("no ClusterRole {role:?} in this file"), "add it or correct the name")
                }
            }
        }
        joined
    }
}

/// `metadata.name`. Labels, annotations and whatever an API server adds to the metadata are left alone.
fn name<'a>(object: &Object<'a>, found: &mut Found) -> Option<&'a str> {
    let metadata = object.required("metadata", found)?;
    Object::open(object.at("metadata"), metadata, found)?.text("name", found)
}

fn rule(at: String, value: &Value, found: &mut Found) -> Option<Rule> {
    const FIELDS: [&str; 5] = ["verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs"];
    let object = Object::read(at, value, &FIELDS, found)?;
    let rule = Rule {
        verbs: object.texts("verbs", found),
        api_groups: object.texts("apiGroups", found),
        resources: object.texts("resources", found),
        resource_names: object.texts("resourceNames", found),
        non_resource_urls: object.texts("nonResourceURLs", found),
    };
    let has = |name: &str| object.optional(name).is_some();
    if rule.verbs.is_empty() {
        found.add(object.at("verbs"), "no verb", "list at least one, such as get");
    }
    if has("nonResourceURLs") {
        for name in ["apiGroups", "resources", "resourceNames"].into_iter().filter(|name| has(name)) {
            found.add(object.at(name), "beside nonResourceURLs", "write one rule for resources and another for URLs");
        }
        return Some(rule);
    }
    if rule.api_groups.is_empty() {
        found.add(object.at("apiGroups"), "no API group", "list at least one; \"\" is Kubernetes' core");
    }
    if rule.resources.is_empty() {
        found.add(object.at("resources"), "no resource", "list at least one, such as managedclusters");
    }
    Some(rule)
}

fn subject(at: String, value: &Value, found: &mut Found) -> Option<Subject> {
    let object = Object::read(at, value, &["apiGroup", "kind", "name", "namespace"], found)?;
    let name = object.text("name", found).map(str::to_owned);
    let kind = object.one_of("kind", &["User", "Group", "ServiceAccount"], found)?;
    if kind == "ServiceAccount" {
        if object.optional("apiGroup").is_some() {
            object.one_of("apiGroup", &[""], found);
        }
        let namespace = object.text("namespace", found)?.to_owned();
        return Some(Subject::ServiceAccount { namespace, name: name? });
    }
    if object.optional("apiGroup").is_some() {
        object.one_of("apiGroup", &[GROUP], found);
    }
    if object.optional("namespace").is_some() {
        found.add(object.at("namespace"), format!("a {kind} has no namespace"), "leave it out");
    }
    Some(if kind == "User" { Subject::User(name?) } else { Subject::Group(name?) })
}

//! From the text of a policy file to its rules.

use moorline_access::{Found, Object, Problems};
use serde_json::Value;

use super::rule::{Resources, Rule};
use crate::{Level, Stage, Stages};

const VERSION: &str = "audit.k8s.io/v1";

/// Bytes of a policy file: all of its rules are looked through for each request.
const MAX_BYTES: usize = 1024 * 1024;

pub(super) fn read(yaml: &str) -> Result<Vec<Rule>, Problems> {
    let mut found = Found::default();
    if yaml.len() > MAX_BYTES {
        found.add("file", format!("{} bytes", yaml.len()), format!("at most {MAX_BYTES} are supported"));
        return found.or(Vec::new());
    }
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    match serde_saphyr::from_str_with_options::<Value>(yaml, options) {
        Ok(value) => {
            let rules = policy(&value, &mut found);
            found.or(rules.unwrap_or_default())
        }
        Err(error) => {
            found.add("file", error.to_string(), "correct the YAML");
            found.or(Vec::new())
        }
    }
}

fn policy(value: &Value, found: &mut Found) -> Option<Vec<Rule>> {
    const FIELDS: [&str; 6] = ["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
    let object = Object::read("policy".to_owned(), value, &FIELDS, found)?;
    object.one_of("apiVersion", &[VERSION], found);
    object.one_of("kind", &["Policy"], found);
    let omitted = stages(&object, found);
    let list = object.list("rules", found);
    if list.is_empty() {
        found.add(object.at("rules"), "no rule", "write at least one, such as `- level: Metadata`");
    }
    let rules = list.into_iter().filter_map(|(at, value)| rule(at, value, omitted, found));
    Some(rules.collect())
}

fn rule(at: String, value: &Value, omitted: Stages, found: &mut Found) -> Option<Rule> {
    const FIELDS: [&str; 10] = [
        "level",
        "users",
        "userGroups",
        "verbs",
        "resources",
        "namespaces",
        "nonResourceURLs",
        "omitStages",
        "omitManagedFields",
        "clusters",
    ];
    let object = Object::read(at, value, &FIELDS, found)?;
    let names = Level::NAMES.map(|(name, _level)| name);
    let level = object.one_of("level", &names, found);
    let level = level.and_then(|name| Level::NAMES.iter().find(|(own, _level)| *own == name));
    let resources = object.list("resources", found).into_iter().filter_map(|(at, value)| resources(at, value, found));
    let resources: Vec<_> = resources.collect();
    let rule = Rule {
        level: level.map_or(Level::Metadata, |(_name, level)| *level),
        omitted: omitted.and(stages(&object, found)),
        users: object.texts("users", found),
        user_groups: object.texts("userGroups", found),
        verbs: object.texts("verbs", found),
        resources,
        namespaces: object.texts("namespaces", found),
        non_resource_urls: object.texts("nonResourceURLs", found),
        clusters: object.texts("clusters", found),
    };
    for url in &rule.non_resource_urls {
        let body = url.trim_end_matches('*');
        if !(url.starts_with('/') || url == "*") || body.contains('*') {
            let remedy = "begin with \"/\", with \"*\" at the end only";
            found.add(object.at("nonResourceURLs"), format!("{url:?}"), remedy);
        }
    }
    let about_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if about_resources && !rule.non_resource_urls.is_empty() {
        let remedy = "write one rule for resources and another for URLs";
        found.add(object.at("nonResourceURLs"), "beside resources or namespaces", remedy);
    }
    Some(rule)
}

fn resources(at: String, value: &Value, found: &mut Found) -> Option<Resources> {
    let object = Object::read(at, value, &["group", "resources", "resourceNames"], found)?;
    let group = match object.optional("group") {
        None => String::new(),
        Some(Value::String(group)) => group.clone(),
        Some(_) => {
            found.add(object.at("group"), "not a text", "put it into quotes");
            String::new()
        }
    };
    if group.contains('/') || group == "*" {
        let remedy = "write the group alone, without version or wildcard; \"\" is Kubernetes' core";
        found.add(object.at("group"), format!("{group:?}"), remedy);
    }
    let (resources, names) = (object.texts("resources", found), object.texts("resourceNames", found));
    if resources.is_empty() && !names.is_empty() {
        found.add(object.at("resourceNames"), "without resources", "name the resources, too");
    }
    Some(Resources { group, resources, names })
}

fn stages(object: &Object<'_>, found: &mut Found) -> Stages {
    let mut stages = Stages::EMPTY;
    for name in object.texts("omitStages", found) {
        match name.as_str() {
            "RequestReceived" => stages = stages.with(Stage::RequestReceived),
            "ResponseStarted" => stages = stages.with(Stage::ResponseStarted),
            "ResponseComplete" => stages = stages.with(Stage::ResponseComplete),
            // There is none here to be left out.
            "Panic" => {}
            _ => {
                let remedy = "write RequestReceived, ResponseStarted, ResponseComplete or Panic";
                found.add(object.at("omitStages"), format!("{name:?}"), remedy);
            }
        }
    }
    stages
}

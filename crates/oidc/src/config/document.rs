//! From the text of an `AuthenticationConfiguration` to issuers. Called by `config`.

use serde_json::Value;

use super::{
    Configuration, Found, IssuerConfig, Problem,
    field::Object,
    issuer::{Draft, check_prefix},
};
use crate::{
    claims::{Mapping, Prefixed},
    keys::SUPPORTED,
};

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];

/// Bytes of a file, and issuers in it: kube-apiserver takes as many.
const MAX_BYTES: usize = 1024 * 1024;
const MAX_ISSUERS: usize = 64;

const USE_CLAIM: &str = "name a claim in `claim`";

pub(super) fn read(yaml: &str) -> Result<Configuration, Vec<Problem>> {
    let mut found = Found::default();
    let issuers = if yaml.len() > MAX_BYTES {
        found.add("file", format!("{} bytes", yaml.len()), format!("at most {MAX_BYTES} are supported"));
        Vec::new()
    } else {
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        match serde_saphyr::from_str_with_options::<Value>(yaml, options) {
            Ok(document) => issuers(&document, &mut found),
            Err(error) => {
                found.add("file", error.to_string(), "correct the YAML");
                Vec::new()
            }
        }
    };
    if found.0.is_empty() { Ok(Configuration { issuers }) } else { Err(found.0) }
}

fn issuers(document: &Value, found: &mut Found) -> Vec<IssuerConfig> {
    let known = ["apiVersion", "kind", "jwt", "anonymous"];
    let Some(root) = Object::read("", document, &known, found) else { return Vec::new() };
    for (name, allowed) in [("apiVersion", &VERSIONS[..]), ("kind", &["AuthenticationConfiguration"][..])] {
        if root.required(name, found).is_some_and(|text| !allowed.contains(&text)) {
            found.add(name, "not known here", format!("write {}", allowed.join(" or ")));
        }
    }
    if root.get("anonymous").is_some() {
        found.add("anonymous", "not supported here", "leave it out, and give --anonymous-auth if it is meant");
    }
    let list = root.list("jwt", found);
    if list.is_empty() {
        found.add("jwt", "no issuer", "write one entry for each issuer");
    }
    if list.len() > MAX_ISSUERS {
        found.add("jwt", format!("{} issuers", list.len()), format!("at most {MAX_ISSUERS} are supported"));
    }
    let mut issuers: Vec<IssuerConfig> = Vec::new();
    for (at, value) in list.into_iter().take(MAX_ISSUERS) {
        let Some(issuer) = issuer(&at, value, found) else { continue };
        if issuers.iter().any(|other| other.url == issuer.url) {
            found.add(
                format!("{at}.issuer.url"),
                format!("{:?} stands there twice", issuer.url),
                "name each issuer once",
            );
        }
        issuers.push(issuer);
    }
    issuers
}

fn issuer(at: &str, value: &Value, found: &mut Found) -> Option<IssuerConfig> {
    let known = ["issuer", "claimValidationRules", "claimMappings", "userValidationRules"];
    let entry = Object::read(at, value, &known, found)?;
    for (at, _rule) in entry.list("userValidationRules", found) {
        found.add(
            at,
            "expressions (CEL) are not supported",
            "leave it out; names that begin with system: are refused always",
        );
    }
    let required = required(&entry, found);
    let mapping = mapping(&entry, required, found);
    let known =
        ["url", "discoveryURL", "certificateAuthority", "audiences", "audienceMatchPolicy", "egressSelectorType"];
    let Some(issuer) = entry.object("issuer", &known, found) else {
        if entry.get("issuer").is_none() {
            found.add(entry.at("issuer"), "missing", "add it");
        }
        return None;
    };
    if issuer.text("audienceMatchPolicy", found).is_some_and(|policy| !["", "MatchAny"].contains(&policy)) {
        found.add(issuer.at("audienceMatchPolicy"), "not known", "write MatchAny");
    }
    if issuer.text("egressSelectorType", found).is_some_and(|kind| !kind.is_empty()) {
        found.add(issuer.at("egressSelectorType"), "not supported here", "leave it out");
    }
    let mut audiences = Vec::new();
    for (at, audience) in issuer.list("audiences", found) {
        match audience.as_str() {
            Some(audience) if !audience.is_empty() => audiences.push(audience.to_owned()),
            _other => found.add(at, "not a text, or empty", "write a client id"),
        }
    }
    let url = issuer.required("url", found);
    let draft = Draft {
        url: (issuer.at("url"), url?),
        discovery: (issuer.at("discoveryURL"), issuer.text("discoveryURL", found)),
        authorities: (issuer.at("certificateAuthority"), issuer.text("certificateAuthority", found).map(str::to_owned)),
        audiences: (issuer.at("audiences"), audiences),
        algorithms: SUPPORTED.to_vec(),
    };
    draft.finish(mapping, found)
}

fn required(entry: &Object<'_>, found: &mut Found) -> Vec<(String, String)> {
    let mut required = Vec::new();
    for (at, value) in entry.list("claimValidationRules", found) {
        let known = ["claim", "requiredValue", "expression", "message"];
        let Some(rule) = Object::read(&at, value, &known, found) else { continue };
        rule.no_expression("expression", "write `claim` and `requiredValue`", found);
        if rule.get("expression").is_some() {
            continue;
        }
        if let Some(claim) = rule.required("claim", found) {
            required.push((claim.to_owned(), rule.text("requiredValue", found).unwrap_or_default().to_owned()));
        }
    }
    required
}

fn mapping(entry: &Object<'_>, required: Vec<(String, String)>, found: &mut Found) -> Option<Mapping> {
    let known = ["username", "groups", "uid", "extra"];
    let Some(mappings) = entry.object("claimMappings", &known, found) else {
        found.add(entry.at("claimMappings.username"), "missing", "name the claim of the user name");
        return None;
    };
    let username = prefixed(&mappings, "username", found);
    if mappings.get("username").is_none() {
        found.add(mappings.at("username"), "missing", "name the claim of the user name");
    }
    let groups = prefixed(&mappings, "groups", found);
    let uid = mappings.object("uid", &["claim", "expression"], found).and_then(|uid| {
        uid.no_expression("expression", USE_CLAIM, found);
        uid.text("claim", found).filter(|claim| !claim.is_empty()).map(str::to_owned)
    });
    let mut extra: Vec<(String, String)> = Vec::new();
    for (at, value) in mappings.list("extra", found) {
        let Some(entry) = Object::read(&at, value, &["key", "valueExpression"], found) else { continue };
        let (key, value) = (extra_key(&entry, found), extra_claim(&entry, found));
        let (Some(key), Some(claim)) = (key, value) else { continue };
        if extra.iter().any(|(other, _claim)| *other == key) {
            found.add(entry.at("key"), format!("{key:?} stands there twice"), "write each key once");
        }
        extra.push((key, claim));
    }
    Some(Mapping { required, username: username?, groups, uid, extra })
}

fn prefixed(mappings: &Object<'_>, name: &str, found: &mut Found) -> Option<Prefixed> {
    let object = mappings.object(name, &["claim", "prefix", "expression"], found)?;
    object.no_expression("expression", USE_CLAIM, found);
    if object.get("expression").is_some() {
        return None;
    }
    let claim = object.required("claim", found)?.to_owned();
    if object.get("prefix").is_none() {
        found.add(object.at("prefix"), "missing", "write a prefix, or \"\" for none, as kube-apiserver asks");
    }
    let prefix = object.text("prefix", found)?.to_owned();
    check_prefix(object.at("prefix"), &prefix, found);
    Some(Prefixed { claim, prefix })
}

/// An extra key is a path under a domain, in lower case, as kube-apiserver asks.
fn extra_key(entry: &Object<'_>, found: &mut Found) -> Option<String> {
    let key = entry.required("key", found)?;
    let domain = key.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
    let reserved = domain.is_some_and(|(domain, _path)| {
        ["kubernetes.io", "k8s.io"].iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}")))
    });
    if domain.is_none() || reserved || key != key.to_ascii_lowercase() {
        found.add(
            entry.at("key"),
            format!("{key:?} cannot be used"),
            "write a domain of your own, / and a path, in lower case",
        );
        return None;
    }
    Some(key.to_owned())
}

fn extra_claim(entry: &Object<'_>, found: &mut Found) -> Option<String> {
    let expression = entry.required("valueExpression", found)?;
    let name = expression.strip_prefix("claims.").filter(|name| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    if name.is_none() {
        found.add(
            entry.at("valueExpression"),
            "expressions (CEL) are not supported beyond the name of a claim",
            "write claims.NAME",
        );
    }
    name.map(str::to_owned)
}

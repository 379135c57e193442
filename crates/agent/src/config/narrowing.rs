//! Whom the server may act as in this cluster: from flags to [`Narrowing`].
//!
//! Called by `resolve`, and by `acting` for those who say the same in Kubernetes' words.

use std::collections::{BTreeMap, BTreeSet};

use moorline_impersonation::{Mapping, Names, Narrowing, Passed};
use moorline_model::Identity;

use super::{ActingFlags, Problems};

pub(super) fn resolve(raw: &ActingFlags, warnings: &mut Vec<String>, problems: &mut Problems) -> Narrowing {
    let mut narrowing = if raw.no_default_denials {
        warnings.push(
            "--no-default-denials: the management side may act as system:masters and as parts of Kubernetes here"
                .to_owned(),
        );
        Narrowing::none()
    } else {
        Narrowing::default()
    };
    let lists = [
        ("--deny-user", &raw.deny_users, &mut narrowing.deny_users),
        ("--deny-group", &raw.deny_groups, &mut narrowing.deny_groups),
        ("--allow-user", &raw.allow_users, &mut narrowing.allow_users),
        ("--allow-group", &raw.allow_groups, &mut narrowing.allow_groups),
    ];
    for (field, rules, list) in lists {
        for rule in rules {
            check(field, rule.trim(), problems);
            list.push(rule.trim().to_owned());
        }
    }
    let prefixes = [
        prefix("--user-prefix", raw.user_prefix.as_deref(), problems),
        prefix("--group-prefix", raw.group_prefix.as_deref(), problems),
    ];
    let [users, groups] = prefixes;
    narrowing.mapping = Mapping {
        users: Names::new(users, names("--map-user", &raw.map_users, problems)),
        groups: Names::new(groups, names("--map-group", &raw.map_groups, problems)),
    };
    narrowing.passed = Passed { uid: !raw.no_uid, extra: extra_keys(raw, problems) };
    for (field, rules, names) in [
        ("--deny-user", &raw.deny_users, &narrowing.mapping.users),
        ("--deny-group", &raw.deny_groups, &narrowing.mapping.groups),
        ("--allow-user", &raw.allow_users, &narrowing.mapping.users),
        ("--allow-group", &raw.allow_groups, &narrowing.mapping.groups),
    ] {
        for rule in rules.iter().filter(|rule| !names.may_be(rule.trim())) {
            warnings.push(format!(
                "{field} {rule:?} is about nobody: rules are about the names that prefixes and mappings give"
            ));
        }
    }
    narrowing
}

/// A rule that would silently be about somebody else than was meant is refused.
fn check(field: &str, rule: &str, problems: &mut Problems) {
    const REMEDY: &str = "write a name, or the beginning of names followed by *";
    if rule.is_empty() {
        problems.add(field, "holds an empty rule", REMEDY);
    } else if rule.trim_end_matches('*').contains('*') || rule.ends_with("**") {
        problems.add(field, format!("{rule:?} has a * before its end"), REMEDY);
    } else if rule.contains(',') && !rule.contains('=') && !rule.ends_with('*') {
        let remedy = "repeat the flag for each name; for a name with a comma, write what is before the comma and *";
        problems.add(field, format!("{rule:?} is one rule, and looks like several"), remedy);
    }
}

fn extra_keys(raw: &ActingFlags, problems: &mut Problems) -> Option<BTreeSet<String>> {
    if raw.no_extra && !raw.extra_keys.is_empty() {
        problems.add("--no-extra", "contradicts --extra-key", "keep one of the two");
    }
    for key in &raw.extra_keys {
        if Identity::new("x").and_then(|user| user.with_extra(key.trim(), [""])).is_err() {
            problems.add("--extra-key", format!("{key:?} is no key"), "write one such as example.com/team");
        }
    }
    let keys = raw.extra_keys.iter().map(|key| key.trim().to_ascii_lowercase());
    (raw.no_extra || !raw.extra_keys.is_empty()).then(|| keys.collect())
}

fn prefix(field: &str, given: Option<&str>, problems: &mut Problems) -> String {
    let prefix = given.unwrap_or_default();
    // An identity with it and one more letter must be one.
    if Identity::new(format!("{prefix}x")).is_err() {
        problems.add(field, format!("{prefix:?} cannot begin a name"), "write a short text such as hub:");
    }
    prefix.to_owned()
}

/// `FROM=TO`, at the last `=`: names of directories hold some.
fn names(field: &str, given: &[String], problems: &mut Problems) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for text in given {
        let pair = text.trim().rsplit_once('=');
        let Some((from, to)) = pair.filter(|(from, to)| !from.is_empty() && Identity::new(*to).is_ok()) else {
            problems.add(field, format!("{text:?} is no mapping"), "write FROM=TO, two names");
            continue;
        };
        if names.insert(from.to_owned(), to.to_owned()).is_some() {
            problems.add(field, format!("{from:?} is mapped twice"), "keep one of the two");
        }
    }
    names
}

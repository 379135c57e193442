//! Which names may come out of a [`Narrowing`]: what whoever impersonates them must have the right to.
//!
//! The rendering of the agent's RBAC is made of it. RBAC knows names and no patterns, and nothing like a denial: so this
//! is as narrow as it can be said with names and beginnings of names, and never narrower than what is let through.

use std::collections::BTreeSet;

use crate::{Names, Narrowing, mapping::EVERYBODY, narrowing::covers};

/// One or many names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// All that begin so; all names where it is empty.
    Beginning(String),
    /// This one.
    Exactly(String),
}

impl Narrowing {
    /// The users that may be acted as; in order, and none covered by another.
    #[must_use]
    pub fn possible_users(&self) -> BTreeSet<Name> {
        possible(&self.mapping.users, &self.allow_users, &self.deny_users)
    }

    /// Those of [`Narrowing::possible_users`] that begin with this.
    #[must_use]
    pub fn possible_users_within(&self, beginning: &str) -> BTreeSet<Name> {
        let within = Name::Beginning(beginning.to_owned());
        let names = self.possible_users().into_iter().filter_map(|name| name.and(&within));
        least(names.filter(|name| !name.is_denied(&self.deny_users)))
    }

    /// The groups that whoever is acted as may be in, those of everybody among them.
    #[must_use]
    pub fn possible_groups(&self) -> BTreeSet<Name> {
        let mut groups = possible(&self.mapping.groups, &self.allow_groups, &self.deny_groups);
        let everybodys = EVERYBODY.map(|group| Name::Exactly(group.to_owned()));
        groups.extend(everybodys.into_iter().filter(|group| !group.is_denied(&self.deny_groups)));
        least(groups)
    }
}

impl Names {
    /// Whether anybody may be called as a rule of [`Narrowing`] says.
    #[must_use]
    pub fn may_be(&self, rule: &str) -> bool {
        EVERYBODY.contains(&rule) || !possible(self, &[rule.to_owned()], &[]).is_empty()
    }
}

impl Name {
    /// What a rule of [`Narrowing`] is about.
    fn of_rule(rule: &str) -> Self {
        match rule.strip_suffix('*') {
            Some(beginning) => Self::Beginning(beginning.to_owned()),
            None => Self::Exactly(rule.to_owned()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Beginning(text) | Self::Exactly(text) => text,
        }
    }

    fn holds(&self, other: &Self) -> bool {
        match self {
            Self::Beginning(beginning) => other.text().starts_with(beginning),
            Self::Exactly(_) => self == other,
        }
    }

    /// What both hold.
    fn and(&self, other: &Self) -> Option<Self> {
        if self.holds(other) {
            Some(other.clone())
        } else if other.holds(self) {
            Some(self.clone())
        } else {
            None
        }
    }

    fn is_denied(&self, rules: &[String]) -> bool {
        match self {
            Self::Exactly(name) => rules.iter().any(|rule| covers(rule, name)),
            Self::Beginning(_) => rules.iter().any(|rule| Self::of_rule(rule).holds(self)),
        }
    }
}

fn possible(names: &Names, allow: &[String], deny: &[String]) -> BTreeSet<Name> {
    let prefixed = Name::Beginning(names.prefix().to_owned());
    let here = names.given().iter().map(|name| Name::Exactly(name.clone())).chain([prefixed]);
    let allowed: BTreeSet<Name> = match allow {
        [] => here.collect(),
        rules => {
            let rules: Vec<Name> = rules.iter().map(|rule| Name::of_rule(rule)).collect();
            here.flat_map(|name| rules.iter().filter_map(move |rule| name.and(rule)).collect::<Vec<_>>()).collect()
        }
    };
    least(allowed.into_iter().filter(|name| !name.is_denied(deny)))
}

/// Without those that others hold.
fn least(names: impl IntoIterator<Item = Name>) -> BTreeSet<Name> {
    let all: BTreeSet<Name> = names.into_iter().collect();
    all.iter().filter(|name| !all.iter().any(|other| other != *name && other.holds(name))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use moorline_model::Identity;
    use proptest::prelude::*;

    use super::*;
    use crate::Mapping;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn shown(names: &BTreeSet<Name>) -> String {
        let each = names.iter().map(|name| match name {
            Name::Beginning(text) => format!("{text}*"),
            Name::Exactly(text) => text.clone(),
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_are_as_few_as_can_be_said() {
        let names = |prefix: &str, given: &[&str]| {
            let given = given.iter().map(|name| (format!("of-{name}"), (*name).to_owned()));
            Names::new(prefix.to_owned(), given.collect())
        };
        for (names, allow, deny, expected) in [
            (names("", &[]), &[][..], &[][..], "*"),
            (names("", &["ann"]), &[], &["bob", "a*"], "*"),
            (names("", &[]), &["ann", "b*", "bob"], &["ben"], "b* ann"),
            (names("", &[]), &["ann", "b*"], &["b*"], "ann"),
            (names("", &[]), &["ann"], &["*"], ""),
            (names("hub:", &["ann", "hub:x"]), &[], &[], "hub:* ann"),
            (names("hub:", &["ann"]), &["hub:bob", "carl", "ann"], &[], "ann hub:bob"),
            (names("hub:", &["ann"]), &["h*", "hub:dev-*"], &["ann"], "hub:*"),
            (names("hub:", &[]), &["hub:dev-*"], &["hub:dev-1"], "hub:dev-*"),
            (names("hub:", &["ann"]), &["other"], &[], ""),
        ] {
            assert_eq!(shown(&possible(&names, &owned(allow), &owned(deny))), expected, "{names:?} {allow:?} {deny:?}");
        }
    }

    #[test]
    fn everybodys_groups_and_service_accounts() {
        let rules = Narrowing { allow_groups: owned(&["dev"]), ..Narrowing::default() };
        assert_eq!(shown(&rules.possible_groups()), "dev system:authenticated system:unauthenticated");
        assert_eq!(shown(&Narrowing::default().possible_groups()), "*");
        let accounts = |allow: &[&str], deny: &[&str]| {
            let rules = Narrowing { allow_users: owned(allow), deny_users: owned(deny), ..Narrowing::none() };
            shown(&rules.possible_users_within("system:serviceaccount:"))
        };
        assert_eq!(accounts(&[], &[]), "system:serviceaccount:*");
        assert_eq!(accounts(&[], &["system:serviceaccount:*"]), "");
        assert_eq!(accounts(&[], &["system:*"]), "");
        assert_eq!(accounts(&["ann", "system:serviceaccount:shop:*"], &[]), "system:serviceaccount:shop:*");
        assert_eq!(accounts(&["ann"], &[]), "");
    }

    const RULES: &str = "[ab]{0,2}[ab*]";

    proptest! {
        #[test]
        fn whoever_is_let_through_is_among_the_possible(
            prefixes in ("[ab]{0,2}", "[ab]{0,2}"),
            users in proptest::collection::btree_map("[ab]{1,3}", "[ab]{1,3}", 0..3),
            groups in proptest::collection::btree_map("[ab]{1,3}", "[ab]{1,3}", 0..3),
            lists in proptest::collection::vec(proptest::collection::vec(RULES, 0..3), 4),
            user in "[ab]{1,3}",
            member in proptest::collection::vec("[ab]{1,3}|system:authenticated", 0..3),
        ) {
            let users: BTreeMap<String, String> = users;
            let rules = Narrowing {
                mapping: Mapping { users: Names::new(prefixes.0, users), groups: Names::new(prefixes.1, groups) },
                deny_users: lists[0].clone(),
                deny_groups: lists[1].clone(),
                allow_users: lists[2].clone(),
                allow_groups: lists[3].clone(),
                ..Narrowing::none()
            };
            let identity = Identity::new(user).unwrap().with_groups(member).unwrap();
            if let Ok(admitted) = rules.admit(identity) {
                let among = |names: &BTreeSet<Name>, name: &str| {
                    names.iter().any(|possible| possible.holds(&Name::Exactly(name.to_owned())))
                };
                prop_assert!(among(&rules.possible_users(), admitted.user()));
                for group in admitted.groups() {
                    prop_assert!(among(&rules.possible_groups(), group), "{}", group);
                }
            }
        }
    }
}

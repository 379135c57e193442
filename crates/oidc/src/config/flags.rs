//! The `--oidc-*` flags of kube-apiserver, for a single issuer. Called by `config`.

use jsonwebtoken::Algorithm;
use moorline_access::Problem;

use super::{
    Configuration, Found,
    issuer::{Draft, check_prefix},
};
use crate::{
    claims::{Mapping, Prefixed},
    keys::SUPPORTED,
};

/// The flags as written, each named like kube-apiserver's; [`Flags::authorities`] is the content of `--oidc-ca-file`.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--oidc-issuer-url`; without it, nothing else may be given.
    pub issuer_url: Option<String>,
    /// `--oidc-client-id`: the audience.
    pub client_id: Option<String>,
    /// What `--oidc-ca-file` holds; none stands for the system's authorities.
    pub authorities: Option<String>,
    /// `--oidc-username-claim`; `sub` by default.
    pub username_claim: Option<String>,
    /// `--oidc-username-prefix`; by default the URL of the issuer and `#` unless the claim is `email`. `-` for none.
    pub username_prefix: Option<String>,
    /// `--oidc-groups-claim`.
    pub groups_claim: Option<String>,
    /// `--oidc-groups-prefix`.
    pub groups_prefix: Option<String>,
    /// `--oidc-required-claim`, each `key=value`.
    pub required_claims: Vec<String>,
    /// `--oidc-signing-algs`; RS256 by default.
    pub signing_algs: Vec<String>,
}

impl Flags {
    pub(super) fn resolve(self) -> Result<Option<Configuration>, Vec<Problem>> {
        let mut found = Found::default();
        let Some(url) = &self.issuer_url else {
            for flag in self.given() {
                found.add(flag, "is given without --oidc-issuer-url", "give the issuer, too");
            }
            return if found.0.is_empty() { Ok(None) } else { Err(found.0) };
        };
        let draft = Draft {
            url: ("--oidc-issuer-url".to_owned(), url),
            discovery: (String::new(), None),
            authorities: ("--oidc-ca-file".to_owned(), self.authorities.clone()),
            audiences: (
                "--oidc-client-id".to_owned(),
                self.client_id.clone().filter(|id| !id.is_empty()).into_iter().collect(),
            ),
            algorithms: self.algorithms(&mut found),
        };
        let mapping = self.mapping(url, &mut found);
        let issuers: Vec<_> = draft.finish(Some(mapping), &mut found).into_iter().collect();
        if found.0.is_empty() { Ok(Some(Configuration { issuers })) } else { Err(found.0) }
    }

    fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("--oidc-client-id", self.client_id.is_some()),
            ("--oidc-ca-file", self.authorities.is_some()),
            ("--oidc-username-claim", self.username_claim.is_some()),
            ("--oidc-username-prefix", self.username_prefix.is_some()),
            ("--oidc-groups-claim", self.groups_claim.is_some()),
            ("--oidc-groups-prefix", self.groups_prefix.is_some()),
            ("--oidc-required-claim", !self.required_claims.is_empty()),
            ("--oidc-signing-algs", !self.signing_algs.is_empty()),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
    }

    fn algorithms(&self, found: &mut Found) -> Vec<Algorithm> {
        if self.signing_algs.is_empty() {
            return vec![Algorithm::RS256];
        }
        let mut algorithms = Vec::new();
        for name in &self.signing_algs {
            match name.parse::<Algorithm>().ok().filter(|algorithm| SUPPORTED.contains(algorithm)) {
                Some(algorithm) => algorithms.push(algorithm),
                None => found.add(
                    "--oidc-signing-algs",
                    format!("{name:?} is not supported"),
                    "write some of RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512",
                ),
            }
        }
        algorithms
    }

    fn mapping(&self, url: &str, found: &mut Found) -> Mapping {
        let claim = self.username_claim.clone().unwrap_or_else(|| "sub".to_owned());
        let prefix = match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) if !prefix.is_empty() => prefix.to_owned(),
            _default if claim == "email" => String::new(),
            _default => format!("{url}#"),
        };
        check_prefix("--oidc-username-prefix", &prefix, found);
        let mut required = Vec::new();
        for rule in &self.required_claims {
            match rule.split_once('=').filter(|(claim, _value)| !claim.is_empty()) {
                Some((claim, value)) => required.push((claim.to_owned(), value.to_owned())),
                None => found.add("--oidc-required-claim", format!("{rule:?} is no pair"), "write CLAIM=VALUE"),
            }
        }
        let groups = self.groups_claim.clone().filter(|claim| !claim.is_empty());
        if groups.is_none() && self.groups_prefix.is_some() {
            found.add("--oidc-groups-prefix", "is given without --oidc-groups-claim", "give the claim, too");
        }
        let prefix_of_groups = self.groups_prefix.clone().unwrap_or_default();
        check_prefix("--oidc-groups-prefix", &prefix_of_groups, found);
        Mapping {
            required,
            username: Prefixed { claim, prefix },
            groups: groups.map(|claim| Prefixed { claim, prefix: prefix_of_groups }),
            uid: None,
            extra: Vec::new(),
        }
    }
}

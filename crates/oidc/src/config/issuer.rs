//! The checks of an issuer that file and flags have in common. Called by `document` and `flags`.

use jsonwebtoken::Algorithm;
use moorline_mtls::Roots;

use super::{Found, IssuerConfig, https};
use crate::claims::{Mapping, RESERVED};

/// Refuses a prefix with which no name could be allowed.
pub(super) fn check_prefix(at: impl Into<String>, prefix: &str, found: &mut Found) {
    if prefix.starts_with(RESERVED) {
        let what = format!("{prefix:?} begins with {RESERVED:?}, which belongs to Kubernetes");
        found.add(at, what, "write another prefix");
    }
}

/// An issuer as written; each value with its place.
pub(super) struct Draft<'a> {
    pub(super) url: (String, &'a str),
    pub(super) discovery: (String, Option<&'a str>),
    pub(super) authorities: (String, Option<String>),
    pub(super) audiences: (String, Vec<String>),
    pub(super) algorithms: Vec<Algorithm>,
}

impl Draft<'_> {
    /// The issuer, if nothing is wrong with it.
    pub(super) fn finish(self, mapping: Option<Mapping>, found: &mut Found) -> Option<IssuerConfig> {
        const REMEDY: &str = "write the https URL of the issuer, without user, query and fragment";
        let (at, url) = self.url;
        let before = found.0.len();
        if let Err(what) = https(url) {
            found.add(at, what, REMEDY);
        } else if url.contains('?') {
            found.add(at, format!("{url:?} has a query"), REMEDY);
        }
        let (at, discovery) = self.discovery;
        let standard = format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'));
        let discovery = match discovery.filter(|text| !text.is_empty()) {
            Some(text) if text == url => {
                found.add(at, "is the URL of the issuer", "leave it out, or write where the discovery document is");
                None
            }
            Some(text) => https(text).map_err(|what| found.add(at, what, "write an https URL")).ok(),
            None => https(&standard).ok(),
        };
        let (at, authorities) = self.authorities;
        let authorities = authorities.filter(|pem| !pem.is_empty());
        if let Some(Err(error)) = authorities.as_ref().map(|pem| Roots::from_pem(pem.as_bytes())) {
            found.add(at, error.to_string(), "write certificates in PEM");
        }
        let (at, audiences) = self.audiences;
        if audiences.is_empty() {
            found.add(at, "no audience", "write the client id that tokens are issued to");
        }
        if found.0.len() > before {
            return None;
        }
        let (url, algorithms) = (url.to_owned(), self.algorithms);
        Some(IssuerConfig { url, discovery: discovery?, authorities, audiences, algorithms, mapping: mapping? })
    }
}

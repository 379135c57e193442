//! Whom to believe, and how claims become a user: kube-apiserver's `AuthenticationConfiguration`, or its `--oidc-*`
//! flags. Read by the server's configuration; every problem is reported together.
//!
//! Expressions (CEL) are not evaluated. Each is refused where it stands, but for `claims.NAME` as the value of an extra
//! key, for which there is no other way to say it.

mod document;
mod field;
mod flags;
mod issuer;

use http::Uri;
use jsonwebtoken::Algorithm;
use moorline_access::Problem;

use crate::claims::Mapping;

pub use flags::Flags;

/// The issuers that are believed, each with how its claims become a user. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    pub(crate) issuers: Vec<IssuerConfig>,
}

/// One issuer, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IssuerConfig {
    /// What tokens and the discovery document must say, to the letter.
    pub(crate) url: String,
    /// Where the discovery document is.
    pub(crate) discovery: Uri,
    /// Authorities in PEM; none stands for the system's.
    pub(crate) authorities: Option<String>,
    /// A token must be for one of these.
    pub(crate) audiences: Vec<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) mapping: Mapping,
}

impl Configuration {
    /// Reads a file in the grammar of `AuthenticationConfiguration` (`apiserver.config.k8s.io/v1`), strictly.
    ///
    /// # Errors
    /// Everything that is wrong, with the place and what to write instead.
    pub fn parse(yaml: &str) -> Result<Self, Vec<Problem>> {
        document::read(yaml)
    }

    /// Reads the flags of the single-issuer case; none where none of them is given.
    ///
    /// # Errors
    /// Everything that is wrong, by flag.
    pub fn from_flags(flags: Flags) -> Result<Option<Self>, Vec<Problem>> {
        flags.resolve()
    }
}

/// An `https` URL without user, query and fragment.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn https(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_invalid| format!("{text:?} is no URL"))?;
    if url.scheme_str() != Some("https") {
        return Err(format!("{text:?} is no https URL"));
    }
    if text.contains(['#', '@']) || url.host().is_none_or(str::is_empty) {
        return Err(format!("{text:?} has a user or a fragment, or no host"));
    }
    Ok(url)
}

/// Problems as they are found.
#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, at: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem { at: at.into(), what: what.into(), remedy: remedy.into() });
    }
}

#[cfg(test)]
mod tests;

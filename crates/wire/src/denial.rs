//! Which rule of a managed cluster's owner an identity met. Travels beside [`Failure::IdentityDenied`], as words and a
//! name: what the user reads is written here, and no agent can make a user read prose of its own.
//!
//! [`Failure::IdentityDenied`]: crate::Failure::IdentityDenied

use std::fmt;

use http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{headers, limits, text};

/// The rule by which an agent does not act for somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    verdict: Verdict,
    kind: Kind,
    name: String,
}

/// What a rule says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is denied.
    Denied,
    /// There is a list of those allowed, and it is not on it.
    NotAllowed,
    /// It is what the cluster's owner calls somebody else.
    Taken,
}

/// Whose name it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A user's.
    User,
    /// A group's.
    Group,
}

impl Denial {
    /// `name` is the rule as configured where it denies, else the name as the cluster sees it; cut to [`limits::TEXT`].
    #[must_use]
    pub fn new(verdict: Verdict, kind: Kind, name: &str) -> Self {
        Self { verdict, kind, name: text::cut(name, limits::TEXT).to_owned() }
    }

    /// The value of the [`headers::DENIAL`] header.
    #[must_use]
    #[expect(clippy::expect_used, reason = "words, spaces and percent-encoded text are within the header alphabet")]
    pub fn header_value(&self) -> HeaderValue {
        let name = utf8_percent_encode(&self.name, NON_ALPHANUMERIC);
        let text = format!("{} {} {name}", self.verdict.as_str(), self.kind.as_str());
        HeaderValue::try_from(text).expect("a header value")
    }

    /// What a response says. None where it says nothing, or nothing that can be shown: too long, or with characters
    /// that a terminal would obey.
    #[must_use]
    pub fn of_response(response: &HeaderMap) -> Option<Self> {
        let mut words = response.get(headers::DENIAL)?.to_str().ok()?.split(' ');
        let (verdict, kind, name) = (words.next()?, words.next()?, words.next()?);
        let verdict = Verdict::KNOWN.into_iter().find(|known| known.as_str() == verdict)?;
        let kind = [Kind::User, Kind::Group].into_iter().find(|known| known.as_str() == kind)?;
        let name = percent_decode_str(name).decode_utf8().ok()?;
        let fits = !name.is_empty() && name.len() <= limits::TEXT && words.next().is_none();
        (fits && !name.chars().any(char::is_control)).then(|| Self { verdict, kind, name: name.into_owned() })
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (self.kind.as_str(), &self.name);
        match self.verdict {
            Verdict::Denied => write!(f, "the cluster's own rules deny the {kind} {name:?}"),
            Verdict::NotAllowed => write!(f, "the cluster's own rules allow some {kind}s, and not {name:?}"),
            Verdict::Taken => write!(f, "the cluster's own rules call another {kind} {name:?}"),
        }
    }
}

impl Verdict {
    const KNOWN: [Self; 3] = [Self::Denied, Self::NotAllowed, Self::Taken];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NotAllowed => "not-allowed",
            Self::Taken => "taken",
        }
    }
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<Denial> {
        Denial::of_response(&HeaderMap::from_iter([(headers::DENIAL, HeaderValue::from_str(value).unwrap())]))
    }

    #[test]
    fn a_denial_comes_back_from_its_header() {
        for verdict in Verdict::KNOWN {
            for (kind, name) in [(Kind::User, "Jürgen \"x\" %41"), (Kind::Group, "system:masters"), (Kind::User, "*")]
            {
                let denial = Denial::new(verdict, kind, name);
                assert_eq!(read(denial.header_value().to_str().unwrap()), Some(denial));
            }
        }
        let denial = Denial::new(Verdict::Denied, Kind::Group, "system:masters");
        assert_eq!(denial.to_string(), "the cluster's own rules deny the group \"system:masters\"");
        let long = Denial::new(Verdict::Taken, Kind::User, &"ü".repeat(1000));
        assert_eq!(read(long.header_value().to_str().unwrap()), Some(long));
    }

    #[test]
    fn what_no_agent_of_ours_writes_is_not_shown() {
        assert_eq!(Denial::of_response(&HeaderMap::new()), None);
        let long = format!("denied user {}", "a".repeat(limits::TEXT + 1));
        for odd in ["", "denied", "denied user", "denied user ", "allowed user a", "denied people a", "denied user a b"]
        {
            assert_eq!(read(odd), None, "{odd}");
        }
        for odd in [&long, "denied user %1b[31mred", "denied user a%0Ab", "denied user %ff", "denied  user a"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}

//! Whether a certificate is in its time, and how far off it is in words that a person can act on.

use std::fmt;

use moorline_model::Timestamp;
use thiserror::Error;

use crate::certificate::CertificateInfo;

/// A certificate outside its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidTime {
    /// Its time is over.
    #[error("expired {} ago, at {not_after}", Span::between(*not_after, *now))]
    Expired {
        /// Its last second.
        not_after: Timestamp,
        /// When it was looked at.
        now: Timestamp,
    },
    /// Its time has not come: most often a clock is wrong.
    #[error("not valid for another {}, until {not_before}; is the clock right? it says {now}", Span::between(*now, *not_before))]
    NotYetValid {
        /// Its first second.
        not_before: Timestamp,
        /// When it was looked at.
        now: Timestamp,
    },
}

/// Checks that `now` is within the certificate's time. Both ends are inclusive, as in RFC 5280.
///
/// # Errors
/// [`InvalidTime`], with how far off it is.
pub fn check_validity(certificate: &CertificateInfo, now: Timestamp) -> Result<(), InvalidTime> {
    let (not_before, not_after) = (certificate.not_before, certificate.not_after);
    if now > not_after {
        return Err(InvalidTime::Expired { not_after, now });
    }
    if now < not_before {
        return Err(InvalidTime::NotYetValid { not_before, now });
    }
    Ok(())
}

/// A length of time, displayed in the one unit that a person would use: `3 days`, `1 hour`, `40 seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    seconds: u64,
}

impl Span {
    /// The time from one moment to the other, in whichever order.
    #[must_use]
    pub fn between(one: Timestamp, other: Timestamp) -> Self {
        Self { seconds: one.unix_seconds().abs_diff(other.unix_seconds()) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        // Two of a unit before it is used: "47 hours" tells more than "1 day".
        let (unit, name) = match self.seconds {
            seconds if seconds >= 2 * DAY => (DAY, "day"),
            seconds if seconds >= 2 * HOUR => (HOUR, "hour"),
            seconds if seconds >= 2 * MINUTE => (MINUTE, "minute"),
            _ => (1, "second"),
        };
        let count = self.seconds / unit;
        write!(f, "{count} {name}{}", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn valid(from: i64, until: i64) -> CertificateInfo {
        let mut params = CertificateParams::default();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(from).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(until).unwrap();
        CertificateInfo::parse(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der()).unwrap()
    }

    #[test]
    fn both_ends_are_within() {
        let certificate = valid(1_000_000, 2_000_000);
        for now in [1_000_000, 1_500_000, 2_000_000] {
            assert_eq!(check_validity(&certificate, at(now)), Ok(()));
        }
        let late = check_validity(&certificate, at(2_000_001)).unwrap_err();
        assert_eq!(late, InvalidTime::Expired { not_after: at(2_000_000), now: at(2_000_001) });
        let early = check_validity(&certificate, at(999_999)).unwrap_err();
        assert_eq!(early, InvalidTime::NotYetValid { not_before: at(1_000_000), now: at(999_999) });
    }

    #[test]
    fn says_how_far_off_in_words() {
        let certificate = valid(1_000_000, 2_000_000);
        let late = check_validity(&certificate, at(2_000_000 + 3 * 86_400 + 5)).unwrap_err();
        assert_eq!(late.to_string(), "expired 3 days ago, at 1970-01-24T03:33:20Z");
        let early = check_validity(&certificate, at(1_000_000 - 7_300)).unwrap_err();
        assert_eq!(
            early.to_string(),
            "not valid for another 2 hours, until 1970-01-12T13:46:40Z; is the clock right? it says 1970-01-12T11:45:00Z"
        );
    }

    #[test]
    fn spans_use_the_unit_a_person_would() {
        let words = |seconds| Span::between(at(0), at(seconds)).to_string();
        assert_eq!(words(0), "0 seconds");
        assert_eq!(words(-1), "1 second");
        assert_eq!(words(119), "119 seconds");
        assert_eq!(words(120), "2 minutes");
        assert_eq!(words(47 * 3600), "47 hours");
        assert_eq!(words(48 * 3600), "2 days");
        assert_eq!(Span::between(at(i64::MIN), at(i64::MAX)).to_string(), "3652424 days");
    }
}

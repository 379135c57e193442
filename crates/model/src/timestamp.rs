//! A moment in whole seconds, as Kubernetes writes it in `creationTimestamp`. The caller brings the clock.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::datetime};

/// A moment in UTC, in whole seconds, between the years 0 and 9999. Displayed as RFC 3339: `2026-11-21T03:53:00Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(OffsetDateTime);

/// The bounds of what RFC 3339 can write.
const EARLIEST: OffsetDateTime = datetime!(0000-01-01 0:00 UTC);
const LATEST: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

impl Timestamp {
    /// The moment so many seconds after 1970 began; what RFC 3339 cannot write is moved to the nearest moment it can.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        let seconds = seconds.clamp(EARLIEST.unix_timestamp(), LATEST.unix_timestamp());
        Self(OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(LATEST))
    }

    /// Seconds since 1970 began.
    #[must_use]
    pub const fn unix_seconds(&self) -> i64 {
        self.0.unix_timestamp()
    }

    /// The moment this much later, or the last that can be written. Fractions of a second are dropped.
    #[must_use]
    pub fn saturating_add(&self, span: Duration) -> Self {
        Self::from_unix_seconds(self.unix_seconds().saturating_add(whole_seconds(span)))
    }

    /// The moment this much earlier, or the first that can be written. Fractions of a second are dropped.
    #[must_use]
    pub fn saturating_sub(&self, span: Duration) -> Self {
        Self::from_unix_seconds(self.unix_seconds().saturating_sub(whole_seconds(span)))
    }

    /// How long after `earlier` this is; zero where it is not after it.
    #[must_use]
    pub fn since(&self, earlier: Self) -> Duration {
        let seconds = self.unix_seconds().saturating_sub(earlier.unix_seconds());
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

fn whole_seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

/// A text that is not a moment in RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a time is written like 2026-11-21T03:53:00Z (RFC 3339)")]
pub struct InvalidTimestamp;

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads RFC 3339 with any offset; fractions of a second are dropped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok().ok_or(InvalidTimestamp)?;
        let seconds = moment.checked_to_offset(UtcOffset::UTC).ok_or(InvalidTimestamp)?.unix_timestamp();
        Ok(Self::from_unix_seconds(seconds))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(moment: SystemTime) -> Self {
        match moment.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_unix_seconds(whole_seconds(after)),
            Err(before) => Self::from_unix_seconds(whole_seconds(before.duration()).saturating_neg()),
        }
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> Self {
        moment.to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).ok().ok_or(fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(seconds: i64) {
            let moment = Timestamp::from_unix_seconds(seconds);
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
        }
    }

    #[test]
    fn writes_as_kubernetes_does() {
        let moment = Timestamp::from_unix_seconds(1_795_233_180);
        assert_eq!(moment.to_string(), "2026-11-21T03:53:00Z");
        assert_eq!("2026-11-21T04:53:00.9+01:00".parse(), Ok(moment));
        assert_eq!("yesterday".parse::<Timestamp>(), Err(InvalidTimestamp));
        assert_eq!(serde_json::to_string(&moment).unwrap(), "\"2026-11-21T03:53:00Z\"");
    }

    #[test]
    fn arithmetic_saturates() {
        let moment = Timestamp::from_unix_seconds(100);
        assert_eq!(moment.saturating_add(Duration::from_secs(50)).since(moment), Duration::from_secs(50));
        assert_eq!(moment.since(moment.saturating_add(Duration::from_secs(50))), Duration::ZERO);
        assert_eq!(moment.saturating_add(Duration::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(moment.saturating_sub(Duration::MAX).to_string(), "0000-01-01T00:00:00Z");
        assert_eq!(Timestamp::from(UNIX_EPOCH + Duration::from_secs(100)), moment);
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(1)).unix_seconds(), -1);
    }
}

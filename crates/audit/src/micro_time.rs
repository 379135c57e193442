//! A moment to the microsecond, as Kubernetes' `MicroTime` is written.

use std::{fmt, time::SystemTime};

use serde::{Serialize, Serializer};
use time::{OffsetDateTime, UtcOffset};

/// A moment in UTC. Displayed as `2026-11-21T03:53:00.000042Z`; always six digits, so that texts sort as moments do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroTime(pub SystemTime);

impl fmt::Display for MicroTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from(self.0).to_offset(UtcOffset::UTC);
        let (year, month, day) = moment.to_calendar_date();
        let (hour, minute, second, micro) = moment.to_hms_micro();
        let month = u8::from(month);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
    }
}

impl Serialize for MicroTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn six_digits_always() {
        for (micros, text) in [
            (1_795_233_180_000_042, "2026-11-21T03:53:00.000042Z"),
            (1_795_233_180_500_000, "2026-11-21T03:53:00.500000Z"),
            (0, "1970-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(MicroTime(UNIX_EPOCH + Duration::from_micros(micros)).to_string(), text);
        }
    }
}

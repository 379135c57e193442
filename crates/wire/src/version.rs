//! Which versions of the protocol this build speaks, and how two ends settle on one.

/// The name of the protocol in the TLS handshake. Whoever offers none speaks another dialect.
pub const ALPN: &[u8] = b"moorline/1";

/// The newest version of the control messages that this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The oldest version of the control messages that this build still speaks.
pub const OLDEST_PROTOCOL_VERSION: u32 = 1;

/// The newest version that both this build and a peer speaking `min..=max` know; none where there is no such version.
#[must_use]
pub fn negotiate(min: u32, max: u32) -> Option<u32> {
    let newest = max.min(PROTOCOL_VERSION);
    (newest >= min.max(OLDEST_PROTOCOL_VERSION)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_on_the_newest_common_version() {
        for (min, max, version) in
            [(1, 1, Some(1)), (0, 7, Some(1)), (1, u32::MAX, Some(1)), (2, 3, None), (0, 0, None), (5, 1, None)]
        {
            assert_eq!(negotiate(min, max), version, "{min}..={max}");
        }
    }
}

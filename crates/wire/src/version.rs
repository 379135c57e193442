//! Which versions of the protocol this build speaks, and how two ends settle on one.
//!
//! The version rises only with what an older end cannot ignore: fields and messages may be added without it, and what one
//! end can do beyond it stands in the capabilities of its hello. A build speaks its own version and those of the two minor
//! versions of the program before it; so agents may be older than their server by two, and newer by as much, as long as
//! both know one version in common.

/// The name of the protocol in the TLS handshake. Whoever offers none speaks another dialect.
pub const ALPN: &[u8] = b"moorline/1";

/// The newest version of the control messages that this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The oldest version of the control messages that this build still speaks.
pub const OLDEST_PROTOCOL_VERSION: u32 = 1;

/// The newest version that both this build and a peer speaking `min..=max` know; none where there is no such version.
#[must_use]
pub fn negotiate(min: u32, max: u32) -> Option<u32> {
    between(min, max, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION)
}

fn between(min: u32, max: u32, our_min: u32, our_max: u32) -> Option<u32> {
    let newest = max.min(our_max);
    (newest >= min.max(our_min)).then_some(newest)
}

/// Why a server does not take an agent that speaks `min..=max`, and which of the two is to be upgraded.
#[must_use]
pub fn too_far_apart(agent: &str, min: u32, max: u32, server: &str) -> String {
    let remedy = if max < OLDEST_PROTOCOL_VERSION { "upgrade the agent" } else { "upgrade the server first" };
    format!(
        "the agent is version {agent:?} and speaks protocol versions {min} to {max}, this server is {server} and speaks \
         {OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}: {remedy}"
    )
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

    #[test]
    fn f27_neighbours_find_a_common_version_in_both_directions() {
        // A build of version N speaks N-2 to N.
        for ours in 5..10_u32 {
            for theirs in ours - 2..=ours + 2 {
                let agreed = between(theirs - 2, theirs, ours - 2, ours);
                assert_eq!(agreed, Some(ours.min(theirs)), "{ours} and {theirs}");
                assert_eq!(agreed, between(ours - 2, ours, theirs - 2, theirs), "whoever asks");
            }
            assert_eq!(between(ours + 1, ours + 3, ours - 2, ours), None);
        }
    }

    #[test]
    fn f27_who_is_to_be_upgraded_is_said() {
        let old = too_far_apart("0.0.9", 0, 0, "0.1.0");
        assert!(old.contains("\"0.0.9\"") && old.contains("0.1.0") && old.ends_with("upgrade the agent"), "{old}");
        assert!(too_far_apart("9.0.0", 7, 9, "0.1.0").ends_with("upgrade the server first"));
    }
}

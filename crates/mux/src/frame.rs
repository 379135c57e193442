//! Frame headers of the protocol: 12 bytes, big endian. Used by `shim`, which follows the frames that
//! pass it in both directions; pure.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::string_slice
)]

/// The length of a header on the wire, in bytes.
pub(crate) const HEADER: usize = 12;

pub(crate) const SYN: u16 = 1;
pub(crate) const ACK: u16 = 2;
pub(crate) const FIN: u16 = 4;
pub(crate) const RST: u16 = 8;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    WindowUpdate,
    Ping,
    GoAway,
    /// None of the above; the engine refuses it and the session ends.
    Unknown(u8),
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) kind: Kind,
    pub(crate) flags: u16,
    /// The stream, or 0 for the session.
    pub(crate) stream: u32,
    /// Bytes of body for data, credit for a window update, an opaque value for a ping, a code for a
    /// go-away.
    pub(crate) value: u32,
}

impl Header {
    pub(crate) fn decode(bytes: [u8; HEADER]) -> Self {
        let [version, kind, f0, f1, s0, s1, s2, s3, v0, v1, v2, v3] = bytes;
        Self {
            version,
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::WindowUpdate,
                2 => Kind::Ping,
                3 => Kind::GoAway,
                other => Kind::Unknown(other),
            },
            flags: u16::from_be_bytes([f0, f1]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            value: u32::from_be_bytes([v0, v1, v2, v3]),
        }
    }

    pub(crate) fn encode(self) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
            Kind::Unknown(other) => other,
        };
        let [f0, f1] = self.flags.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [v0, v1, v2, v3] = self.value.to_be_bytes();
        [self.version, kind, f0, f1, s0, s1, s2, s3, v0, v1, v2, v3]
    }

    pub(crate) fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// How many bytes follow the header. Only data frames have a body.
    pub(crate) fn body(self) -> u32 {
        if self.kind == Kind::Data { self.value } else { 0 }
    }

    pub(crate) fn reset(stream: u32) -> Self {
        Self { version: 0, kind: Kind::Data, flags: RST, stream, value: 0 }
    }

    pub(crate) fn ping(value: u32) -> Self {
        Self { version: 0, kind: Kind::Ping, flags: SYN, stream: 0, value }
    }

    pub(crate) fn pong(value: u32) -> Self {
        Self { version: 0, kind: Kind::Ping, flags: ACK, stream: 0, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_twelve_bytes_survive_a_round_trip(bytes: [u8; HEADER]) {
            prop_assert_eq!(Header::decode(bytes).encode(), bytes);
        }
    }

    #[test]
    fn only_data_has_a_body() {
        let header = Header { value: 7, ..Header::reset(3) };
        assert_eq!(header.body(), 7);
        assert_eq!(Header::ping(7).body(), 0);
        assert!(Header::ping(7).has(SYN) && Header::pong(7).has(ACK));
    }
}

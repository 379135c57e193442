//! The bytes that wait for the transport. Used by `shim::write`; pure.
//!
//! It has no memory while empty, save a scrap, so that an idle session costs nothing, and it starts
//! each time with as much as it lately needed, so that a busy one does not grow it again and again.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::string_slice
)]

/// An empty box of this capacity or less, in bytes, keeps its memory.
const SCRAP: usize = 1024;

/// Sent bytes are kept in front until they are this many, so that one partial write after the other
/// does not move the rest each time.
const SLACK: usize = 32 * 1024;

#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// The most that was in the box lately.
    usual: usize,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.bytes.is_empty() && self.bytes.capacity() < self.usual {
            self.bytes.reserve(self.usual.max(bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// The transport took so many bytes.
    pub(super) fn advance(&mut self, taken: usize) {
        self.usual = self.usual.max(self.bytes.len());
        self.sent = self.sent.saturating_add(taken).min(self.bytes.len());
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent >= SLACK {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Nothing waits any more: gives the memory back.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > SCRAP {
            self.bytes = Vec::new();
            self.usual = self.usual.saturating_sub(self.usual / 8);
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_box_has_no_memory() {
        let mut outbox = Outbox::default();
        outbox.push(&[1; 100_000]);
        outbox.advance(100_000);
        outbox.rest();
        assert_eq!((outbox.len(), outbox.capacity()), (0, 0));
        outbox.push(b"x");
        assert!(outbox.capacity() >= 50_000, "the next burst does not start small");
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order(pushes: Vec<Vec<u8>>, takes: Vec<usize>) {
            let mut outbox = Outbox::default();
            let (mut put, mut got) = (Vec::new(), Vec::new());
            let mut takes = takes.into_iter().chain(std::iter::repeat(usize::MAX));
            for bytes in pushes {
                outbox.push(&bytes);
                put.extend_from_slice(&bytes);
                let take = takes.next().unwrap_or(0).min(outbox.len());
                got.extend_from_slice(&outbox.unsent()[..take]);
                outbox.advance(take);
                outbox.rest();
            }
            got.extend_from_slice(outbox.unsent());
            prop_assert_eq!(put, got);
        }
    }
}

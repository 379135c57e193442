//! Messages to bytes and back: a length of four bytes, most significant first, then so many bytes of JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    limits,
    message::{
        AgentStatus, GoAway, Heartbeat, HeartbeatAck, Hello, Kind, Message, ProtocolError, Refused, RenewOrder,
        RootsOrder, RootsTaken, Welcome,
    },
    text::cut,
};

/// The length in front of each message.
const LENGTH_BYTES: usize = 4;

/// The bytes of a message, ready to be sent. Texts longer than [`limits::TEXT`] are cut, so it always fits.
#[must_use]
pub fn encode(message: &Message) -> Vec<u8> {
    let kind = cut(message.kind(), limits::WORD);
    match message {
        Message::Hello(body) => frame(kind, body),
        Message::Welcome(body) => frame(kind, body),
        Message::Refused(body) => frame(kind, body),
        Message::Heartbeat(body) => frame(kind, body),
        Message::HeartbeatAck(body) => frame(kind, body),
        Message::GoAway(body) => frame(kind, body),
        Message::Status(body) => frame(kind, body),
        Message::Renew(body) => frame(kind, body),
        Message::Roots(body) => frame(kind, body),
        Message::RootsTaken(body) => frame(kind, body),
        Message::Error(body) => frame(kind, body),
        Message::Unknown(_) => frame(kind, &Nothing {}),
    }
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Tagged<'a, Body> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(flatten)]
    body: &'a Body,
}

#[expect(clippy::expect_used, reason = "plain data, whose every text and list is cut to a limit as it is written")]
fn frame<Body: Serialize>(kind: &str, body: &Body) -> Vec<u8> {
    let json = serde_json::to_vec(&Tagged { kind, body }).expect("a message is plain data");
    let length = u32::try_from(json.len()).expect("a message is far shorter than 4 GiB");
    [&length.to_be_bytes()[..], &json].concat()
}

/// Takes bytes as they come and gives messages as they are complete. Holds at most [`limits::DECODER_BACKLOG`] bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    failed: bool,
    overflowed: bool,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes. Take all messages out with [`Decoder::next`] after each read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed || self.overflowed {
            return;
        }
        if bytes.len() > limits::DECODER_BACKLOG.saturating_sub(self.pending.len()) {
            self.overflowed = true;
            self.pending = Vec::new();
            return;
        }
        self.pending.extend_from_slice(bytes);
    }

    /// The next complete message, or none until more bytes have come.
    ///
    /// # Errors
    /// The other side does not speak the protocol. Nothing more can be read: every later call fails, too.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: none means not yet")]
    pub fn next(&mut self) -> Result<Option<Message>, DecodeError> {
        let next = self.take();
        if next.is_err() {
            self.failed = true;
            self.pending = Vec::new();
        }
        next
    }

    /// Whether the bytes so far end with a complete message, so that the stream may end here.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.pending.is_empty() && !self.failed && !self.overflowed
    }

    fn take(&mut self) -> Result<Option<Message>, DecodeError> {
        if self.failed {
            return Err(DecodeError::Failed);
        }
        if self.overflowed {
            return Err(DecodeError::Overflow);
        }
        let Some((length, rest)) = self.pending.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > limits::MESSAGE {
            return Err(DecodeError::TooLong { length });
        }
        let Some(json) = rest.get(..size) else { return Ok(None) };
        let message = read(json)?;
        self.pending.drain(..size.saturating_add(LENGTH_BYTES));
        Ok(Some(message))
    }
}

/// Why bytes are not messages.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A message is announced that is longer than any is.
    #[error("a message of {length} bytes is announced, more than the {max} allowed", max = limits::MESSAGE)]
    TooLong {
        /// The announced length.
        length: u32,
    },
    /// A message is not JSON, or lacks a field.
    #[error("a message cannot be read: {why:?}")]
    Malformed {
        /// What the JSON reader said, cut to [`limits::TEXT`].
        why: String,
    },
    /// More bytes were pushed than a decoder holds.
    #[error("more than {max} bytes of messages wait to be read", max = limits::DECODER_BACKLOG)]
    Overflow,
    /// An earlier message could not be read.
    #[error("an earlier message could not be read")]
    Failed,
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

fn read(json: &[u8]) -> Result<Message, DecodeError> {
    let Tag { kind } = parse(json)?;
    Ok(match kind.as_ref() {
        Hello::KIND => Message::Hello(parse(json)?),
        Welcome::KIND => Message::Welcome(parse(json)?),
        Refused::KIND => Message::Refused(parse(json)?),
        Heartbeat::KIND => Message::Heartbeat(parse(json)?),
        HeartbeatAck::KIND => Message::HeartbeatAck(parse(json)?),
        GoAway::KIND => Message::GoAway(parse(json)?),
        AgentStatus::KIND => Message::Status(parse(json)?),
        RenewOrder::KIND => Message::Renew(parse(json)?),
        RootsOrder::KIND => Message::Roots(parse(json)?),
        RootsTaken::KIND => Message::RootsTaken(parse(json)?),
        ProtocolError::KIND => Message::Error(parse(json)?),
        unknown => Message::Unknown(cut(unknown, limits::WORD).to_owned()),
    })
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(json)
        .map_err(|error| DecodeError::Malformed { why: cut(&error.to_string(), limits::TEXT).to_owned() })
}

#[cfg(test)]
mod tests;

//! Kubernetes' channels within a WebSocket: the first byte of a message names the stream it belongs to. Pure.

use bytes::Bytes;
use serde_json::{Value, json};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Cannot say that standard input ended.
    V4,
    /// Can.
    V5,
}

impl Protocol {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::V5, Self::V4].into_iter().find(|protocol| protocol.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }
}

/// What a client's message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    Stdin(Bytes),
    StdinEnded,
    /// A new terminal size, which an echo shell does not need, or a channel that no client writes.
    Nothing,
}

/// What the program has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outbound {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The program ended: nothing comes after this.
    Exit(u8),
}

pub(super) fn read(protocol: Protocol, message: &Bytes) -> Inbound {
    match (message.first(), message.get(1)) {
        (Some(&STDIN), _) => Inbound::Stdin(message.slice(1..)),
        (Some(&CLOSE), Some(&STDIN)) if protocol == Protocol::V5 => Inbound::StdinEnded,
        (Some(&RESIZE), _) | (_, _) => Inbound::Nothing,
    }
}

pub(super) fn write(outbound: &Outbound) -> Bytes {
    match outbound {
        Outbound::Stdout(bytes) => on(STDOUT, bytes),
        Outbound::Stderr(bytes) => on(STDERR, bytes),
        Outbound::Exit(code) => on(ERROR, exit_status(*code).to_string().as_bytes()),
    }
}

fn on(channel: u8, bytes: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(1 + bytes.len());
    message.push(channel);
    message.extend_from_slice(bytes);
    Bytes::from(message)
}

fn exit_status(code: u8) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_their_channel() {
        let read_v5 = |bytes: &'static [u8]| read(Protocol::V5, &Bytes::from_static(bytes));
        assert_eq!(read_v5(b"\x00hi"), Inbound::Stdin(Bytes::from_static(b"hi")));
        assert_eq!(read_v5(b"\xff\x00"), Inbound::StdinEnded);
        assert_eq!(read(Protocol::V4, &Bytes::from_static(b"\xff\x00")), Inbound::Nothing);
        assert_eq!(read_v5(b"\x04{}"), Inbound::Nothing);
        assert_eq!(read_v5(b""), Inbound::Nothing);
        assert_eq!(&write(&Outbound::Stderr(b"no".to_vec()))[..], b"\x02no");
        let status: Value = serde_json::from_slice(&write(&Outbound::Exit(3))[1..]).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }
}

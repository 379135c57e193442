//! Round trips in any slicing, and arbitrary bytes: never a panic, never unbounded memory.

use moorline_model::SessionId;
use proptest::prelude::*;

use super::*;
use crate::{CloseReason, SessionLimits};

fn hello(text: String, capabilities: Vec<String>) -> Message {
    Message::Hello(Hello {
        protocol_min: 1,
        protocol_max: 2,
        agent_version: text.clone(),
        session_id: SessionId::from_bytes([9; 16]),
        cluster_uid: Some(text.clone()),
        kubernetes_version: Some(text),
        roots: capabilities.clone(),
        capabilities,
        cluster: Some("east".parse().unwrap()),
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let text = || ".{0,40}";
    let reason = || "[a-z-]{1,20}".prop_map(|word| CloseReason::from(word.as_str()));
    prop_oneof![
        (text(), prop::collection::vec(".{0,10}", 0..4)).prop_map(|(text, words)| hello(text, words)),
        (text(), any::<[u8; 16]>(), any::<(u32, u64, u32, u64)>()).prop_map(|(server_version, id, numbers)| {
            Message::Welcome(Welcome {
                protocol: numbers.0,
                server_version,
                session_id: SessionId::from_bytes(id),
                cluster: "east".parse().unwrap(),
                heartbeat_interval_ms: numbers.1,
                limits: SessionLimits { streams: numbers.2, request_head: numbers.3 },
            })
        }),
        (reason(), text(), any::<Option<u64>>()).prop_map(|(reason, message, reconnect_after_ms)| {
            Message::Refused(Refused { reason, message, reconnect_after_ms })
        }),
        any::<u64>().prop_map(|sequence| Message::Heartbeat(Heartbeat { sequence })),
        any::<u64>().prop_map(|sequence| Message::HeartbeatAck(HeartbeatAck { sequence })),
        (reason(), text(), any::<Option<u64>>()).prop_map(|(reason, message, reconnect_after_ms)| {
            Message::GoAway(GoAway { reason, message, reconnect_after_ms })
        }),
        (any::<bool>(), prop::option::of(text()), prop::option::of(text())).prop_map(|(upstream_ok, why, version)| {
            Message::Status(AgentStatus {
                upstream_ok,
                upstream_reason: why,
                kubernetes_version: version.clone(),
                cluster_uid: version,
            })
        }),
        any::<u64>().prop_map(|within_ms| Message::Renew(RenewOrder { within_ms })),
        text().prop_map(|pem| Message::Roots(RootsOrder { pem })),
        (prop::collection::vec(".{0,10}", 0..4), prop::option::of(text()))
            .prop_map(|(roots, error)| Message::RootsTaken(RootsTaken { roots, error })),
        (text(), prop::option::of(text()))
            .prop_map(|(message, message_type)| Message::Error(ProtocolError { message, message_type })),
        "[a-z]{1,20}2".prop_map(Message::Unknown),
    ]
}

fn all(decoder: &mut Decoder) -> Result<Vec<Message>, DecodeError> {
    std::iter::from_fn(|| decoder.next().transpose()).collect()
}

fn framed(json: &[u8]) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json].concat()
}

fn read_one(json: &str) -> Result<Option<Message>, DecodeError> {
    let mut decoder = Decoder::new();
    decoder.push(&framed(json.as_bytes()));
    decoder.next()
}

proptest! {
    #[test]
    fn any_messages_in_any_slices_come_back(
        sent in prop::collection::vec(messages(), 0..6),
        slice in 1_usize..200,
    ) {
        let bytes: Vec<u8> = sent.iter().flat_map(encode).collect();
        let mut decoder = Decoder::new();
        let mut received = Vec::new();
        for part in bytes.chunks(slice) {
            decoder.push(part);
            received.extend(all(&mut decoder).unwrap());
        }
        prop_assert!(decoder.is_between_messages());
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_stay_bounded(parts: Vec<Vec<u8>>) {
        let mut decoder = Decoder::new();
        for part in parts {
            decoder.push(&part);
            drop(all(&mut decoder));
            prop_assert!(decoder.pending.len() <= limits::MESSAGE + LENGTH_BYTES);
        }
    }

    #[test]
    fn arbitrary_json_never_panics(json in "\\{\"type\":\"(hello|welcome|status|go-away|x)\".{0,80}\\}?") {
        drop(read_one(&json));
    }

    #[test]
    fn every_message_fits(text in "\\PC{0,9}|\0{0,3000}|\u{1F980}{0,900}", count in 0_usize..200) {
        let bytes = encode(&hello(text.clone(), vec![text; count]));
        prop_assert!(bytes.len() <= limits::MESSAGE + LENGTH_BYTES, "{}", bytes.len());
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        prop_assert!(matches!(decoder.next(), Ok(Some(Message::Hello(_)))));
    }
}

#[test]
fn the_bytes_are_as_documented() {
    let bytes = encode(&Message::Heartbeat(Heartbeat { sequence: 7 }));
    assert_eq!(bytes, framed(br#"{"type":"heartbeat","sequence":7}"#));
}

#[test]
fn unknown_fields_are_ignored_and_unknown_types_kept() {
    let beat = read_one(r#"{"sequence":7,"later":{"a":[1]},"type":"heartbeat"}"#);
    assert_eq!(beat, Ok(Some(Message::Heartbeat(Heartbeat { sequence: 7 }))));
    assert_eq!(read_one(r#"{"type":"dance","steps":3}"#), Ok(Some(Message::Unknown("dance".to_owned()))));
    let long = read_one(&format!(r#"{{"type":"{}"}}"#, "x".repeat(1000)));
    assert_eq!(long, Ok(Some(Message::Unknown("x".repeat(limits::WORD)))));
}

#[test]
fn what_is_not_a_message_ends_the_stream() {
    for bad in ["", "{}", "[]", "nul", r#"{"type":7}"#, r#"{"type":"heartbeat"}"#, r#"{"type":"hello"}"#] {
        assert!(matches!(read_one(bad), Err(DecodeError::Malformed { .. })), "{bad}");
    }
    let mut decoder = Decoder::new();
    decoder.push(&framed(b"{"));
    decoder.push(&encode(&Message::Heartbeat(Heartbeat { sequence: 1 })));
    assert!(matches!(decoder.next(), Err(DecodeError::Malformed { .. })));
    assert_eq!(decoder.next(), Err(DecodeError::Failed));
    decoder.push(&encode(&Message::Heartbeat(Heartbeat { sequence: 1 })));
    assert_eq!(decoder.next(), Err(DecodeError::Failed));
    assert!(decoder.pending.is_empty());
}

#[test]
fn an_oversized_length_is_refused_before_any_of_it_is_held() {
    let mut decoder = Decoder::new();
    decoder.push(&[0x00, 0x01, 0x00, 0x01]);
    assert_eq!(decoder.next(), Err(DecodeError::TooLong { length: 65_537 }));
    let mut largest = Decoder::new();
    largest.push(&[0x00, 0x01, 0x00, 0x00]);
    assert_eq!(largest.next(), Ok(None));
}

#[test]
fn a_caller_that_never_reads_is_stopped() {
    let mut decoder = Decoder::new();
    decoder.push(&vec![0; limits::DECODER_BACKLOG]);
    decoder.push(&[0]);
    assert_eq!(decoder.next(), Err(DecodeError::Overflow));
    assert!(!decoder.is_between_messages());
}

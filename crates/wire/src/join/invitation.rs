//! A join token as its bearer holds it: one line of text with everything that it takes to join.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use moorline_model::{ClusterName, Fingerprint};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::JoinSecret;

/// What every join token begins with, so that people and secret scanners know one.
const PREFIX: &str = "moorline-join.";

/// The version of the content.
const VERSION: u32 = 1;

/// Bytes of the whole text. Ours have some 400.
const MAX_TEXT: usize = 4096;

/// Authorities that a token may pin: those of an overlap, and room.
const MAX_PINS: usize = 4;

/// Bytes of an address, and of an id.
const MAX_ADDRESS: usize = 300;
const MAX_ID: usize = 64;

/// What a join token says: where to, as whom, by which secret, and how the server is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Where the tunnel server is dialled: `host:port`.
    pub address: String,
    /// Whose agent joins.
    pub name: ClusterName,
    /// Names the token in lists; not secret.
    pub id: String,
    /// The secret.
    pub secret: JoinSecret,
    /// The SHA-256 of the public keys of the tunnel's authorities: one, or several while they overlap.
    pub pins: Vec<Fingerprint>,
}

/// Why a text is no join token. Holds nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvitationError {
    /// Something else altogether.
    #[error("is not a join token (a text that begins with {PREFIX:?})")]
    NotOne,
    /// Begins like one.
    #[error("is damaged: a part of it is missing or was changed; copy the whole line again")]
    Damaged,
    /// Of a later version.
    #[error("is of version {0}, and this program knows version {VERSION}: use a newer agent")]
    Version(u32),
}

#[derive(Serialize, Deserialize)]
struct Content {
    v: u32,
    addr: String,
    name: ClusterName,
    id: String,
    secret: JoinSecret,
    pin: Vec<Fingerprint>,
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

impl Invitation {
    /// The text to be handed over.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let content = Content {
            v: VERSION,
            addr: self.address.clone(),
            name: self.name.clone(),
            id: self.id.clone(),
            secret: self.secret.clone(),
            pin: self.pins.clone(),
        };
        // Plain data with texts for keys: there is nothing that JSON could not say.
        let json = Zeroizing::new(serde_json::to_vec(&content).unwrap_or_default());
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*json));
        Zeroizing::new(format!("{PREFIX}{}", *encoded))
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    /// Reads a token; white space around it is that of a file or of a terminal.
    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).ok_or(InvitationError::NotOne)?;
        if text.len() > MAX_TEXT {
            return Err(InvitationError::Damaged);
        }
        let json = URL_SAFE_NO_PAD.decode(encoded).map(Zeroizing::new).map_err(|_x| InvitationError::Damaged)?;
        let Versioned { v } = serde_json::from_slice(&json).map_err(|_says_too_much| InvitationError::Damaged)?;
        if v != VERSION {
            return Err(InvitationError::Version(v));
        }
        let content: Content = serde_json::from_slice(&json).map_err(|_says_too_much| InvitationError::Damaged)?;
        let Content { addr: address, name, id, secret, pin: pins, .. } = content;
        let plain =
            |text: &str, most| !text.is_empty() && text.len() <= most && text.chars().all(|c| c.is_ascii_graphic());
        if !plain(&address, MAX_ADDRESS) || !plain(&id, MAX_ID) || pins.is_empty() || pins.len() > MAX_PINS {
            return Err(InvitationError::Damaged);
        }
        Ok(Self { address, name, id, secret, pins })
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("address", &self.address)
            .field("name", &self.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            address: "hub.example.com:9449".to_owned(),
            name: "east".parse().unwrap(),
            id: "0123456789ab".to_owned(),
            secret: JoinSecret::from_bytes([0xa5; 32]),
            pins: vec![Fingerprint::from_bytes([7; 32])],
        }
    }

    fn encoded(json: &serde_json::Value) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json.to_string()))
    }

    #[test]
    fn says_what_it_was_told_and_shows_no_secret() {
        let text = invitation().to_text();
        assert_eq!(format!(" {}\n", *text).parse(), Ok(invitation()));
        assert!(text.len() < 420, "{}", text.len());
        let shown = format!("{:?}", invitation());
        assert!(!shown.contains("paWlp") && !shown.contains("165") && !shown.contains("a5a5"), "{shown}");
        let json = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX).unwrap()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let expected = serde_json::json!({
            "v": 1, "addr": "hub.example.com:9449", "name": "east", "id": "0123456789ab",
            "secret": URL_SAFE_NO_PAD.encode([0xa5; 32]), "pin": ["07".repeat(32)],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn what_is_none_is_told_apart() {
        let read = |text: &str| text.parse::<Invitation>().unwrap_err();
        assert_eq!(read("eyJhbGciOi"), InvitationError::NotOne);
        assert_eq!(read(""), InvitationError::NotOne);
        let text = invitation().to_text();
        assert_eq!(read(&text[..text.len() - 3]), InvitationError::Damaged);
        assert_eq!(read(&format!("{}x y", *text)), InvitationError::Damaged);
        assert_eq!(read(&encoded(&serde_json::json!({"v": 2}))), InvitationError::Version(2));
    }

    #[test]
    fn every_field_is_bounded() {
        let json = URL_SAFE_NO_PAD.decode(invitation().to_text().strip_prefix(PREFIX).unwrap()).unwrap();
        let good: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert!(encoded(&good).parse::<Invitation>().is_ok());
        for (field, bad) in [
            ("addr", serde_json::json!("")),
            ("addr", serde_json::json!("a b")),
            ("addr", serde_json::json!("a".repeat(301))),
            ("name", serde_json::json!("East")),
            ("id", serde_json::json!("\u{7}")),
            ("secret", serde_json::json!("c2hvcnQ")),
            ("pin", serde_json::json!([])),
            (
                "pin",
                serde_json::json!([
                    "00".repeat(32),
                    "01".repeat(32),
                    "02".repeat(32),
                    "03".repeat(32),
                    "04".repeat(32)
                ]),
            ),
            ("pin", serde_json::json!(["00"])),
        ] {
            let mut json = good.clone();
            json[field] = bad;
            assert_eq!(encoded(&json).parse::<Invitation>(), Err(InvitationError::Damaged), "{field}: {}", json[field]);
        }
    }

    proptest! {
        #[test]
        fn survives_its_text(bytes: [u8; 32], pin: [u8; 32], port in 1_u16.., id in "[a-z0-9]{1,64}") {
            let invitation = Invitation {
                address: format!("[2001:db8::1]:{port}"),
                name: "a-1".parse().unwrap(),
                id,
                secret: JoinSecret::from_bytes(bytes),
                pins: vec![Fingerprint::from_bytes(pin)],
            };
            prop_assert_eq!(invitation.to_text().parse(), Ok(invitation));
        }

        #[test]
        fn damage_is_an_error_or_another_token_and_never_a_panic(at in any::<prop::sample::Index>(), to in any::<char>()) {
            let text = invitation().to_text();
            let at = at.index(text.len());
            let changed: String = text.chars().enumerate().map(|(index, c)| if index == at { to } else { c }).collect();
            drop(changed.parse::<Invitation>());
            prop_assert!(text[..at].parse::<Invitation>().is_err());
        }

        #[test]
        fn noise_never_panics(text in ".{0,200}") {
            prop_assert!(text.parse::<Invitation>().is_err());
            let like = format!("{PREFIX}{text}");
            prop_assert!(like.parse::<Invitation>().is_err());
        }
    }
}

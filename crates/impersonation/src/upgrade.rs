//! Which upgrades may pass.
//!
//! A connection that was switched is passed through byte for byte. Were it switched to cleartext HTTP/2, its user could
//! send further requests on it that nobody stripped, over a connection that may be authenticated as the agent. So only
//! the protocols pass that kube-apiserver switches to, and nothing that is offered beside them.

use http::{HeaderMap, HeaderValue, header};

use crate::strip::tokens;

/// What kube-apiserver switches to for exec, attach, port-forward and for watches over WebSocket.
const PROTOCOLS: [&str; 2] = ["spdy/3.1", "websocket"];

/// The protocol to which the request asks to switch, if it asks properly and the protocol may pass.
pub(crate) fn offered(headers: &HeaderMap, connection: &[HeaderValue]) -> Option<HeaderValue> {
    if !connection.iter().flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    let mut offers = headers.get_all(header::UPGRADE).iter().flat_map(tokens);
    let offer = offers
        .next()
        .filter(|offer| PROTOCOLS.iter().any(|protocol| offer.eq_ignore_ascii_case(protocol.as_bytes())))?;
    if offers.next().is_some() {
        return None;
    }
    HeaderValue::from_bytes(offer).ok()
}

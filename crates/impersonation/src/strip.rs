//! Takes out of a request's head whatever could say who it is from, and what belongs to one connection only.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    names::{BEARER_SUBPROTOCOL, is_forbidden},
    upgrade,
};

/// Removes every inbound credential, every impersonation header, what front proxies say about users, everything of
/// `x-moorline-*`, and all hop-by-hop headers with those that `Connection` lists.
///
/// An upgrade to WebSocket or SPDY/3.1 stays (`Connection: upgrade` and `Upgrade`), without a bearer token among the
/// WebSocket subprotocols; an upgrade to anything else is removed, so that the request is answered without one.
/// Where there is nothing to remove, this is one pass over the names and allocates nothing.
pub fn strip(headers: &mut HeaderMap) {
    strip_connection(headers);
    let forbidden: Vec<HeaderName> = headers.keys().filter(|name| is_forbidden(name.as_str())).cloned().collect();
    for name in forbidden {
        headers.remove(name);
    }
    strip_bearer_subprotocol(headers);
}

/// The elements of a comma-separated value, without surrounding blanks; empty ones are left out.
pub(crate) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

fn strip_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        headers.remove(header::UPGRADE);
        return;
    }
    let connection: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    let offer = upgrade::offered(headers, &connection);
    headers.remove(header::UPGRADE);
    headers.remove(header::CONNECTION);
    for name in connection.iter().flat_map(tokens).filter_map(|token| HeaderName::from_bytes(token).ok()) {
        headers.remove(name);
    }
    if let Some(offer) = offer {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, offer);
    }
}

/// Whether a credential is hidden among the protocols that a WebSocket is asked for, which is how browsers send one.
#[must_use]
pub fn has_bearer_subprotocol(headers: &HeaderMap) -> bool {
    headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().flat_map(tokens).any(is_bearer)
}

fn strip_bearer_subprotocol(headers: &mut HeaderMap) {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    if !values.iter().flat_map(tokens).any(is_bearer) {
        return;
    }
    let kept: Vec<&[u8]> = values.iter().flat_map(tokens).filter(|token| !is_bearer(token)).collect();
    match HeaderValue::from_bytes(&kept.join(&b", "[..])) {
        Ok(value) if !kept.is_empty() => {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        Ok(_) | Err(_) => {
            headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        }
    }
}

fn is_bearer(token: &[u8]) -> bool {
    token.get(..BEARER_SUBPROTOCOL.len()).is_some_and(|start| start.eq_ignore_ascii_case(BEARER_SUBPROTOCOL.as_bytes()))
}

#[cfg(test)]
mod tests;

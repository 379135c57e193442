//! What a cluster's response may not say to a user: what belongs to the tunnel, and what speaks for the gateway.
//!
//! Called by `forward` for every response. All clusters answer under one name, the gateway's. A browser takes some
//! headers as said by that name for everything under it, so a managed cluster (or a pod behind its `proxy`) could set
//! cookies for, log users out of, or open to other sites what belongs to the gateway and to every other cluster. They
//! are removed, whatever they say. kube-apiserver itself sends none of them that a client of its API needs.

use http::{HeaderMap, HeaderName, header};
use moorline_wire::headers as wire;

/// Removes them. A body that has two ways to say where it ends keeps one.
pub(super) fn clean(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        // How the body ends, and what it is, is not for a connection to take back.
        .filter(|name| !matches!(name.as_str(), "content-length" | "content-type" | "content-encoding"))
        .collect();
    let unwanted = headers.keys().filter(|name| is_of_the_tunnel(name) || speaks_for_the_origin(name.as_str()));
    let unwanted: Vec<HeaderName> = unwanted.cloned().chain(listed).collect();
    for name in unwanted {
        headers.remove(name);
    }
}

fn is_of_the_tunnel(name: &HeaderName) -> bool {
    wire::is_ours(name)
        // Said to a kube-apiserver, never by one: whoever reflects requests would give the agent's token away.
        || name.as_str().starts_with("impersonate-")
        || matches!(
            name.as_str(),
            "authorization"
                | "connection"
                | "keep-alive"
                | "proxy-authenticate"
                | "proxy-authentication-info"
                | "proxy-connection"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        )
}

fn speaks_for_the_origin(name: &str) -> bool {
    name.starts_with("access-control-")
        || matches!(
            name,
            // What the browser keeps for the name, or deletes.
            "set-cookie" | "set-cookie2" | "clear-site-data" | "accept-ch" | "critical-ch"
            // How it reaches the name from now on, and whom it tells about it.
            | "strict-transport-security" | "public-key-pins" | "public-key-pins-report-only" | "expect-ct" | "alt-svc"
            | "nel" | "report-to" | "reporting-endpoints"
            // A worker that answers for other paths of the name than its own.
            | "service-worker-allowed"
            // Who is logged in there, and a prompt for a password in the name of the gateway.
            | "set-login" | "www-authenticate" | "authentication-info"
        )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn left(headers: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        clean(&mut map);
        let mut left: Vec<_> = map.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn nothing_of_the_tunnel_reaches_the_user() {
        let left = left(&[
            ("x-moorline-identity", "v"),
            ("x-moorline-what", "v"),
            ("authorization", "v"),
            ("impersonate-user", "v"),
            ("connection", "keep-alive"),
            ("keep-alive", "v"),
            ("upgrade", "v"),
            ("audit-id", "v"),
            ("date", "v"),
        ]);
        assert_eq!(left, ["audit-id", "date"]);
    }

    #[test]
    fn no_cluster_speaks_for_the_gateway() {
        let left = left(&[
            ("set-cookie", "session=theirs; Path=/"),
            ("set-cookie", "other=theirs"),
            ("clear-site-data", "\"*\""),
            ("strict-transport-security", "max-age=31536000"),
            ("alt-svc", "h3=\"evil.example:443\""),
            ("service-worker-allowed", "/"),
            ("access-control-allow-origin", "*"),
            ("access-control-what-comes-later", "*"),
            ("www-authenticate", "Basic realm=\"gateway\""),
            ("content-security-policy", "default-src 'none'"),
            ("warning", "299 - \"deprecated\""),
            ("x-kubernetes-pf-flowschema-uid", "u"),
        ]);
        assert_eq!(left, ["content-security-policy", "warning", "x-kubernetes-pf-flowschema-uid"]);
    }

    #[test]
    fn what_was_said_to_one_hop_ends_there() {
        assert!(left(&[("transfer-encoding", "chunked"), ("content-length", "3")]).is_empty());
        let left = left(&[
            ("connection", "X-Internal, close"),
            ("connection", "x-other , content-length"),
            ("x-internal", "v"),
            ("x-other", "v"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
        ]);
        assert_eq!(left, ["content-length", "content-type"]);
    }
}

//! Every header that must not pass, in one list.
//!
//! Names are compared with `_` taken for `-`: some programs between here and an application do not tell them apart.

/// Kubernetes' impersonation headers; all that begin so are removed, also those that Kubernetes may add later.
pub(crate) const IMPERSONATE: &str = "impersonate-";
pub(crate) const IMPERSONATE_USER: &str = "impersonate-user";
pub(crate) const IMPERSONATE_GROUP: &str = "impersonate-group";
pub(crate) const IMPERSONATE_UID: &str = "impersonate-uid";
pub(crate) const IMPERSONATE_EXTRA: &str = "impersonate-extra-";

/// The subprotocol by which a browser's WebSocket carries a bearer token to kube-apiserver.
pub(crate) const BEARER_SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether a header, given in lower case, must not pass. `connection` and `upgrade` are not listed: they are rewritten.
pub(crate) fn is_forbidden(name: &str) -> bool {
    // The first letter decides for nearly all headers of nearly all requests.
    let (exact, prefixes): (&[&str], &[&str]) = match name.as_bytes().first() {
        Some(b'a') => (&["authorization"], &[]),
        Some(b'c') => (&["cookie", "cookie2", "client-cert", "client-cert-chain"], &["cf-access-"]),
        Some(b'f') => (&["forwarded"], &[]),
        // The settings of an upgrade to cleartext HTTP/2, which is never passed on.
        Some(b'h') => (&["http2-settings"], &[]),
        Some(b'i') => (&[], &[IMPERSONATE]),
        Some(b'k') => (&["keep-alive"], &[]),
        Some(b'p') => (&[], &["proxy-"]),
        Some(b's') => (&[], &["ssl-client-"]),
        // Hop-by-hop; whoever sends the request on frames it anew.
        Some(b't') => (&["te", "trailer", "transfer-encoding"], &[]),
        Some(b'x') => (
            &["x-api-key", "x-auth-token", "x-client-cert", "x-real-ip"],
            &[
                // kube-apiserver's own front proxy (`--requestheader-*`).
                "x-remote-",
                "x-moorline-",
                // Where kube-apiserver's audit log takes source addresses from, and how proxies pass certificates.
                "x-forwarded-",
                "x-ssl-",
                // What login proxies say about their users.
                "x-amzn-oidc-",
                "x-auth-request-",
                "x-goog-authenticated-user-",
                "x-goog-iap-",
                "x-ms-client-principal",
                "x-ms-token-",
                "x-webauth-",
            ],
        ),
        _ => return false,
    };
    exact.iter().any(|one| name.len() == one.len() && begins(name, one))
        || prefixes.iter().any(|prefix| begins(name, prefix))
}

/// Whether `name` begins with `prefix`, `_` taken for `-`.
pub(crate) fn begins(name: &str, prefix: &str) -> bool {
    name.len() >= prefix.len()
        && name
            .bytes()
            .zip(prefix.bytes())
            .all(|(byte, expected)| byte == expected || (byte == b'_' && expected == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_pass_and_ordinary_headers_do() {
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "proxy-connection",
            "impersonate-user",
            "impersonate_user",
            "impersonate-extra-a%2fb",
            "impersonate-what-comes-later",
            "x-remote-user",
            "x_remote_group",
            "x-remote-extra-scopes",
            "x-moorline-identity",
            "x-forwarded-client-cert",
            "x-forwarded-for",
            "forwarded",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "http2-settings",
        ] {
            assert!(is_forbidden(name), "{name}");
        }
        for name in [
            "accept",
            "accept-encoding",
            "connection",
            "content-length",
            "content-type",
            "host",
            "if-none-match",
            "kubectl-command",
            "kubectl-session",
            "sec-websocket-key",
            "tea",
            "tracestate",
            "traceparent",
            "upgrade",
            "user-agent",
            "x-cluster-id",
            "x-remote",
            "x-request-id",
            "x-stream-protocol-version",
        ] {
            assert!(!is_forbidden(name), "{name}");
        }
    }
}

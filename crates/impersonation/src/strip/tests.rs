//! What goes, what stays, and what `Connection` can and cannot do.

use super::*;

fn head(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect()
}

#[track_caller]
fn becomes(before: &[(&str, &str)], after: &[(&str, &str)]) {
    let mut headers = head(before);
    strip(&mut headers);
    assert_eq!(headers, head(after), "{before:?}");
}

#[test]
fn an_ordinary_request_stays_as_it_is() {
    let ordinary = [
        ("host", "a"),
        ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
        ("accept-encoding", "gzip"),
        ("user-agent", "kubectl"),
        ("kubectl-command", "kubectl get"),
        ("content-length", "3"),
    ];
    becomes(&ordinary, &ordinary);
}

#[test]
fn what_says_who_goes_in_any_case_and_number() {
    becomes(
        &[
            ("Authorization", "Bearer a"),
            ("AUTHORIZATION", "Bearer b"),
            ("IMPERSONATE-USER", "root"),
            ("impersonate-Group", "system:masters"),
            ("Impersonate-Group", "system:nodes"),
            ("Impersonate-Extra-A%2Fb", "c"),
            ("Impersonate-Uid", "0"),
            ("impersonate_user", "root"),
            ("X-Remote-User", "root"),
            ("X-Remote-Extra-Scopes", "all"),
            ("X-Moorline-Identity", "e30"),
            ("x-forwarded-client-cert", "Hash=1"),
            ("proxy-authorization", "Basic a"),
            ("cookie", "session=1"),
            ("accept", "*/*"),
        ],
        &[("accept", "*/*")],
    );
}

#[test]
fn what_connection_lists_goes_before_anything_is_written() {
    becomes(
        &[
            ("connection", "keep-alive, Impersonate-User ,,X-Odd"),
            ("connection", "\"not a name\", x-two"),
            ("x-odd", "1"),
            ("x-two", "2"),
            ("x-two", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "impersonate-user"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ],
        &[("accept", "*/*")],
    );
}

#[test]
fn upgrades_that_kubernetes_knows_stay() {
    for protocol in ["websocket", "WebSocket", "SPDY/3.1"] {
        becomes(
            &[("connection", "keep-alive, upgrade, x-odd"), ("upgrade", protocol), ("x-odd", "1")],
            &[("connection", "Upgrade"), ("upgrade", protocol)],
        );
    }
}

#[test]
fn other_upgrades_go() {
    for upgrade in [
        &[("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")][..],
        &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
        &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
        &[("connection", "upgrade"), ("upgrade", "")],
        &[("connection", "upgrade")],
        &[("connection", "close"), ("upgrade", "websocket")],
        &[("upgrade", "websocket")],
    ] {
        becomes(upgrade, &[]);
    }
    becomes(
        &[("connection", "upgrade"), ("upgrade", ""), ("upgrade", "websocket")],
        &[("connection", "Upgrade"), ("upgrade", "websocket")],
    );
}

#[test]
fn bearer_tokens_leave_the_websocket_subprotocols() {
    const BEARER: &str = "base64url.bearer.authorization.k8s.io.c2VjcmV0";
    let upper = BEARER.to_uppercase();
    becomes(
        &[("sec-websocket-protocol", &format!("v5.channel.k8s.io, {BEARER},v4.channel.k8s.io"))],
        &[("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")],
    );
    becomes(
        &[("sec-websocket-protocol", &upper), ("sec-websocket-protocol", "v5.channel.k8s.io")],
        &[("sec-websocket-protocol", "v5.channel.k8s.io")],
    );
    becomes(&[("sec-websocket-protocol", BEARER)], &[]);
    let plain = [("sec-websocket-protocol", "v5.channel.k8s.io,v4.channel.k8s.io")];
    becomes(&plain, &plain);
}

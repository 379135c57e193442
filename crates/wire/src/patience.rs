//! Which requests may rightly take long. Both ends ask it: the server for the deadline on a response and the choice of a
//! stream, the agent for its own deadline on the kube-apiserver.

use percent_encoding::percent_decode_str;

/// What kube-apiserver exempts from its own request timeout: watches, `proxy`, `exec`, `attach`, `portforward`, `log`.
/// A log that is followed has no head before its first line. `path` and `query` are as they were sent; they are decoded
/// as kube-apiserver decodes them. Read generously: a mistake costs one stream, or one deadline.
#[must_use]
pub fn may_take_long(path: &str, query: Option<&str>) -> bool {
    let late =
        |segment: &str| matches!(segment, "watch" | "proxy" | "exec" | "attach" | "portforward" | "log" | "logs");
    let by_path = if path.contains('%') {
        percent_decode_str(path).decode_utf8_lossy().split('/').any(late)
    } else {
        path.split('/').any(late)
    };
    by_path || query.is_some_and(|query| query.split('&').any(asks_to_stay))
}

/// `watch` or `follow`, whatever its value: which values mean no is for kube-apiserver to say.
fn asks_to_stay(pair: &str) -> bool {
    let key = pair.split('=').next().unwrap_or_default();
    let stays = |key: &str| matches!(key, "watch" | "follow");
    if key.contains('%') { stays(&percent_decode_str(key).decode_utf8_lossy()) } else { stays(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_lets_run_may_take_long() {
        for (path, query, long) in [
            ("/api/v1/pods", None, false),
            ("/api/v1/pods", Some("limit=500&continue=x"), false),
            ("/api/v1/pods", Some("allowWatchBookmarks=true"), false),
            ("/api/v1/pods", Some("allowWatchBookmarks=true&watch=1"), true),
            ("/api/v1/pods", Some("watch=True"), true),
            ("/api/v1/pods", Some("watch"), true),
            ("/api/v1/pods", Some("w%61tch=t"), true),
            ("/api/v1/pods", Some("watch=%31"), true),
            ("/api/v1/watch/pods", None, true),
            ("/api/v1/w%61tch/pods", None, true),
            ("/apis/apps/v1/watch/deployments", None, true),
            ("/api/v1/namespaces/a/pods/b/log", Some("follow=true"), true),
            ("/api/v1/namespaces/a/pods/b%2Flog", None, true),
            ("/api/v1/namespaces/a/pods/b/exec", Some("command=ls"), true),
            ("/api/v1/namespaces/a/services/b:80/proxy/x", None, true),
            ("/api/v1/namespaces/a/pods/logger", None, false),
            ("/api/v1/namespaces/a/configmaps/watchful", Some("%"), false),
        ] {
            assert_eq!(may_take_long(path, query), long, "{path} {query:?}");
        }
    }
}

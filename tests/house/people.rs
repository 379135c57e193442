//! A house with users: who they are, what they may do, and the small things that the tests of them share.

use std::fmt::Write as _;
use std::time::Duration;

use moorline_process::write_private;
use moorline_server::RawConfig;
use moorline_testkit::client::{Client, LIMIT};
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Their tokens, which must appear in no log.
pub(crate) const ADMIN: &str = "the-token-of-admin-5b0c";
pub(crate) const ALICE: &str = "the-token-of-alice-91f2";
pub(crate) const BOB: &str = "the-token-of-bob-7d3e";
pub(crate) const CAROL: &str = "the-token-of-carol-c4a8";

/// Alice may reach `east`, Bob nothing; Carol may reach it too, and act as some others.
const POLICY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all}
rules:
- {apiGroups: ["moorline.io"], resources: ["managedclusters"], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: all}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "moorline:admins"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: all}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: east}
rules:
- {apiGroups: ["moorline.io"], resources: ["managedclusters"], resourceNames: ["east"], verbs: ["get"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: east}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: dev}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: dave}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: east}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: act}
rules:
- {apiGroups: [""], resources: ["users"], resourceNames: ["dave", "bob"], verbs: ["impersonate"]}
- {apiGroups: [""], resources: ["groups"], resourceNames: ["ops"], verbs: ["impersonate"]}
- {apiGroups: ["authentication.k8s.io"], resources: ["uids"], resourceNames: ["7"], verbs: ["impersonate"]}
- {apiGroups: ["authentication.k8s.io"], resources: ["userextras/scopes"], resourceNames: ["view"], verbs: ["impersonate"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: act}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: carol}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: act}
"#;

/// A server with users, an agent of the cluster `east`, and its kube-apiserver.
pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) agent: Agent,
    pub(crate) upstream: Upstream,
    pub(crate) logs: Logs,
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with("", |_| {}).await
    }

    /// With further lines in the table of tokens, and other settings.
    pub(crate) async fn with(tokens: &str, change: impl FnOnce(&mut RawConfig)) -> Self {
        let logs = Logs::capture();
        let directory = tempfile::tempdir().unwrap();
        write_private(&directory.path().join("tokens.csv"), table(tokens).as_bytes()).unwrap();
        write_private(&directory.path().join("policy.yaml"), POLICY.as_bytes()).unwrap();
        let server = Server::start_in(directory, change).await.unwrap();
        let upstream = Upstream::start_for(16 * 1024).await.unwrap();
        let agent = server.agent("east", &upstream.url()).await.unwrap();
        Self { server, agent, upstream, logs }
    }

    /// Somebody by their token.
    pub(crate) fn user(&self, token: &str) -> Client {
        self.server.admin_client().unwrap().with_token(token)
    }

    /// Waits until nothing runs anywhere, and the server has no more than this many tasks (a few for idle streams
    /// aside).
    pub(crate) async fn at_rest(&self, tasks: f64) {
        /// Streams that both ends may keep for the next request, and their connections.
        const KEPT: f64 = 70.0;
        until("nothing runs upstream", async || self.upstream.running() == 0).await;
        for gauge in ["moorline_gateway_requests_running", "moorline_gateway_upgraded", "moorline_gateway_connections"]
        {
            until(gauge, async || self.server.metric(gauge, &[]).await.unwrap() == 0.0).await;
        }
        until("the agent serves nothing", async || {
            self.agent.metric("moorline_agent_requests_running", &[]).await.unwrap() == 0.0
        })
        .await;
        until("tasks have ended", async || {
            self.server.metric("moorline_tasks", &[]).await.unwrap() <= tasks + KEPT
                && self.agent.metric("moorline_tasks", &[]).await.unwrap() <= tasks + 2.0 * KEPT
        })
        .await;
        assert!(self.upstream.connections() <= 64, "{}", self.upstream.connections());
    }

    /// What the gateway answers to these bytes until it closes. The user has nothing more to say.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.user(ALICE).tls(&[b"http/1.1"]).await.unwrap();
        let mut answer = Vec::new();
        // It may have heard enough, and hung up, before it has read everything.
        drop(socket.write_all(bytes).await);
        drop(tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer)).await.unwrap());
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The table of tokens, with further lines.
pub(crate) fn table(more: &str) -> String {
    let mut text = format!("{ADMIN},admin,admin,\"moorline:admins\"\n");
    for (token, line) in [(ALICE, "alice,1001,\"dev\""), (BOB, "bob,1002,\"sales\""), (CAROL, "carol,1003,\"dev\"")] {
        writeln!(text, "{token},{line}").unwrap();
    }
    text + more
}

/// The status code of an answer as it came over the wire.
pub(crate) fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Waits until `holds`.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + LIMIT;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

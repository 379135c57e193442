//! Agents that are not let in: each time both sides say why, and nobody becomes another cluster.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use moorline_ca::{Authority, Issued};
use moorline_model::{ClusterUid, Timestamp};
use moorline_mtls::{HttpsConnector, KeyPair, Roots};
use moorline_server::RawConfig;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;
use serde_json::{Value, json};

use super::people::until;

const HOUR: Duration = Duration::from_secs(3600);
const SOME_UID: [u8; 16] = [7; 16];

/// A server that knows the cluster `east`, the files of its agent, and a kube-apiserver.
struct House {
    server: Server,
    upstream: Upstream,
    files: Value,
    logs: Logs,
}

impl House {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RawConfig)) -> Self {
        let logs = Logs::capture();
        let server = Server::start_with(change).await.unwrap();
        let files = serde_json::to_value(server.create("east").await.unwrap()).unwrap();
        Self { server, upstream: Upstream::start().await.unwrap(), files, logs }
    }

    /// The server's own authority for agents.
    fn authority(&self) -> Authority {
        let file = |name: &str| std::fs::read_to_string(self.server.directory().join(name)).unwrap();
        Authority::from_pem(&file("tunnel-ca.crt"), &file("tunnel-ca.key")).unwrap()
    }

    /// An agent with the files of `east`, but this certificate.
    fn agent(&self, issued: &Issued) -> anyhow::Result<Agent> {
        let mut files = self.files.clone();
        files["enrolment"]["managed-cluster.crt"] = json!(issued.certificate_pem);
        files["enrolment"]["managed-cluster.key"] = json!(issued.key_pem.as_str());
        Agent::start(&serde_json::from_value(files).unwrap(), self.server.tunnel, &self.upstream.url(), |_| {})
    }

    async fn logs_say(&self, parts: &[&str]) {
        until(&format!("a log line has {parts:?}"), async || self.logs.contain(parts)).await;
    }

    /// What the tunnel door tells somebody with this certificate, or none, who speaks nothing but TLS.
    async fn stranger_is_told(&self, keys: Option<KeyPair>) -> String {
        let roots = Roots::from_pem(self.authority().certificate_pem().as_bytes()).unwrap();
        let connector = HttpsConnector::new(roots, keys.map(Into::into), &[b"moorline/1"]);
        let socket = tokio::net::TcpStream::connect(self.server.tunnel).await.unwrap();
        let mut tls = connector.connect(socket, "moorline-tunnel", HOUR).await.unwrap();
        let error = tokio::io::AsyncReadExt::read_u8(&mut tls).await.unwrap_err();
        moorline_mtls::explain_io(&error).map(|error| error.to_string()).unwrap_or_default()
    }

    /// Both sides say why, this server counts it, and no request gets anywhere.
    async fn refused(&self, reason: &str, server_says: &str, agent_says: &str) {
        let before = self.upstream.seen_of_users().len();
        until(&format!("it is counted as {reason}"), async || {
            let label = format!("\"{reason}\"");
            self.server.metric("moorline_tunnel_refused_total", &[&label]).await.unwrap() > 0.0
        })
        .await;
        self.logs_say(&["moorline_server", "agent refused", server_says]).await;
        let here = self.server.tunnel.to_string();
        self.logs_say(&["moorline_agent", "no session with the server", &here, "remedy", agent_says]).await;
        let answer = self.server.admin_client().unwrap().get("/clusters/east/api").await.unwrap();
        assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        assert!(answer.body.contains("\"kind\":\"Status\""), "{}", answer.body);
        assert!(!self.server.cluster("east").await.unwrap().status.connected);
        assert_eq!(self.upstream.seen_of_users().len(), before);
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn agent_certificate(authority: &Authority, cluster: &str, now: Timestamp, life: Duration) -> Issued {
    authority.issue_agent(&cluster.parse().unwrap(), &ClusterUid::from_bytes(SOME_UID), now, life).unwrap()
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_and_both_sides_say_why() {
    let house = House::new().await;
    let stranger = Authority::generate("somebody else", now(), HOUR).unwrap();
    let _agent = house.agent(&agent_certificate(&stranger, "east", now(), HOUR)).unwrap();
    house.refused("unknown-authority", "authority that is not trusted", "authority that it does not trust").await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_both_sides_say_why() {
    let house = House::new().await;
    let past = now().saturating_sub(Duration::from_secs(240));
    let expired = agent_certificate(&house.authority(), "east", past, Duration::from_secs(60));
    // The agent looks for itself before it dials, and says what to do.
    let told = house.agent(&expired).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(told.contains("managed-cluster.crt is expired 3 minutes ago"), "{told}");
    assert!(told.contains("moorline cluster add"), "{told}");
    // One that does not look is told by the server.
    let keys = KeyPair::from_pem(expired.certificate_pem.as_bytes(), expired.key_pem.as_bytes()).unwrap();
    let told = house.stranger_is_told(Some(keys)).await;
    assert!(told.contains("expired"), "{told}");
    until("the server says it", async || house.logs.contain(&["agent refused", "expired 3 minutes ago"])).await;
}

#[tokio::test]
async fn a_certificate_that_expires_ends_the_session_and_both_sides_say_why() {
    let house = House::with(|raw| raw.agent_certificate_life = Some("10s".to_owned())).await;
    let files = serde_json::from_value(house.files.clone()).unwrap();
    let agent = Agent::start(&files, house.server.tunnel, &house.upstream.url(), |_| {}).unwrap();
    house.server.connected("east").await.unwrap();
    // Where it cannot keep a certificate it asks for none, and goes on with the one that it has.
    // In one step, long before it is time to renew: whatever it writes, it writes elsewhere or not at all.
    let aside = tempfile::tempdir().unwrap();
    std::fs::rename(agent.files(), aside.path().join("files")).unwrap();
    std::fs::write(agent.files(), "in the way").unwrap();
    house.logs_say(&["moorline_server", "session ended", "certificate has expired"]).await;
    house.logs_say(&["moorline_agent", "the server sends this session away", "expired"]).await;
    house.refused("expired", "seconds ago", "our certificate has expired").await;
}

#[tokio::test]
async fn a_certificate_that_nobody_registered_is_refused_and_both_sides_say_why() {
    let house = House::new().await;
    let _agent = house.agent(&agent_certificate(&house.authority(), "east", now(), HOUR)).unwrap();
    house
        .refused(
            "cluster-deleted",
            "was issued for is not registered here",
            "it was deleted, or this server was restored",
        )
        .await;
}

#[tokio::test]
async fn the_agent_of_a_deleted_cluster_is_refused_and_a_namesake_does_not_help_it() {
    let house = House::new().await;
    let files = serde_json::from_value(house.files.clone()).unwrap();
    let admin = house.server.admin_client().unwrap();
    let delete = async || {
        let answer = admin.ask(admin.request(http::Method::DELETE, "/v1/clusters/east")).await.unwrap();
        assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
    };
    delete().await;
    house.server.create("east").await.unwrap();
    let _agent = Agent::start(&files, house.server.tunnel, &house.upstream.url(), |_| {}).unwrap();
    house
        .refused(
            "cluster-deleted",
            "was issued for is not registered here",
            "it was deleted, or this server was restored",
        )
        .await;
}

#[tokio::test]
async fn an_agent_with_the_files_of_another_cluster_serves_that_one_only() {
    let house = House::new().await;
    let west = house.server.create("west").await.unwrap();
    let _agent = Agent::start(&west, house.server.tunnel, &house.upstream.url(), |_| {}).unwrap();
    house.server.connected("west").await.unwrap();
    let answer = house.server.admin_client().unwrap().get("/clusters/east/api").await.unwrap();
    assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
    assert!(house.upstream.seen("/api").is_empty());
}

#[tokio::test]
async fn without_a_certificate_an_agent_does_not_start_and_a_stranger_is_told() {
    let house = House::new().await;
    let mut files = house.files.clone();
    files["enrolment"]["managed-cluster.crt"] = json!("");
    let files = serde_json::from_value(files).unwrap();
    let told = match Agent::start(&files, house.server.tunnel, &house.upstream.url(), |_| {}) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert!(told.contains("managed-cluster.crt"), "{told}");

    let told = house.stranger_is_told(None).await;
    assert!(told.contains("certificate"), "{told}");
    until("the server says it", async || house.logs.contain(&["agent refused", "presented no client certificate"]))
        .await;
}

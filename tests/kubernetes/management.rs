//! A third control plane as the management cluster: it says whose a token is and who may reach which cluster, while the
//! managed one decides what they may do there.
//!
//! `acting` plays `kubectl --as` and the like, `ends` what happens to those who are at work when their right is taken.

mod acting;
mod ends;

use std::path::PathBuf;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use moorline_testkit::client::{Answer, Client};
use moorline_testkit::eventually;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::kubernetes::{ControlPlane, Credential, Kubectl, Options, write_kubeconfig};
use moorline_testkit::logs::Logs;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::kube::Kube;
use crate::stage::{Cluster, cluster};
use crate::tunnel::{RUNTIME, enroll_in};

const NAME: &str = "shops";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const ADMIN: (&str, &str) = ("management-admin-5a7e", "admin");
/// Users of the static table, besides. Who they may act as is in `acting`.
const DEPUTY: (&str, &str) = ("deputys-token-77ac", "deputy");
const PLAIN: (&str, &str) = ("plains-token-02d1", "plain");
/// Only for [`ends`]: their lines and rights are taken away.
const WALTER: (&str, &str) = ("walters-token-9f13", "walter");
const WENDY: (&str, &str) = ("wendys-token-b5e0", "wendy");

/// Far above what answers are remembered here plus the time between two looks, for a busy machine.
const EFFECTIVE: Duration = Duration::from_secs(60);

struct House {
    server: Server,
    management: ControlPlane,
    managed: &'static Cluster,
    _agent: Agent,
    logs: Logs,
}

static SHARED: OnceCell<Option<House>> = OnceCell::const_new();

/// The house of all tests that leave its kube-apiservers alone; `None` where the programs are missing.
async fn shared() -> Option<&'static House> {
    SHARED.get_or_init(|| async { RUNTIME.spawn(house("shared")).await.unwrap() }).await.as_ref()
}

async fn house(name: &str) -> Option<House> {
    let logs = Logs::capture();
    let managed = cluster(1).await?;
    let options = Options { name: format!("management-{name}"), ..Options::default() };
    let management = ControlPlane::start(managed.plane.tools(), options).await.unwrap();
    let everything = json!([{ "apiGroups": ["moorline.io"], "resources": ["managedclusters"], "verbs": ["*"] }]);
    management.grant(ADMIN.1, &everything).await.unwrap();
    // All that the server itself needs there: what Kubernetes calls an authentication delegator.
    let delegator = json!([
        { "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] },
        { "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"] },
    ]);
    management.grant("moorline-server", &delegator).await.unwrap();
    let certificate = management.client_certificate("moorline-server", "moorline").unwrap();
    let kubeconfig = management.kubeconfig("moorline-server", &Credential::Certificate(&certificate)).unwrap();
    management.api().create("/api/v1/namespaces", &json!({ "metadata": { "name": "apps" } })).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let tokens = tokens(&logs, &[ADMIN, DEPUTY, PLAIN, WALTER, WENDY]);
    moorline_process::write_private(&directory.path().join("tokens.csv"), tokens.as_bytes()).unwrap();
    let server = Server::start_in(directory, |raw| {
        (raw.kubernetes_authn, raw.kubernetes_authz) = (true, true);
        raw.kubeconfig = Some(kubeconfig);
        raw.authentication_cache_ttl = second();
        raw.authentication_cache_unauthenticated_ttl = second();
        raw.authorization_cache_authorized_ttl = second();
        raw.authorization_cache_unauthorized_ttl = second();
        raw.recheck_interval = second();
        raw.reload_interval = second();
    });
    let server = server.await.unwrap();
    let agent = enroll_in(&server, NAME, &managed.plane, &format!("moorline-{name}")).await;
    Some(House { server, management, managed, _agent: agent, logs })
}

fn second() -> Option<String> {
    Some("1s".to_owned())
}

/// A static table.
fn tokens(logs: &Logs, users: &[(&str, &str)]) -> String {
    let line = |(token, user): &(&str, &str)| {
        logs.forbid(token);
        format!("{token},{user},,\n")
    };
    users.iter().map(line).collect()
}

/// kubectl at the cluster of a server.
fn kubectl(server: &Server, managed: &Cluster, user: &str, token: &str) -> Kube {
    Kube {
        tools: managed.plane.tools().clone(),
        version: Kubectl::New,
        kubeconfig: kubeconfig(server, user, token),
        prefix: String::new(),
        namespace: "apps".to_owned(),
    }
}

fn kubeconfig(server: &Server, user: &str, token: &str) -> PathBuf {
    let path = server.directory().join(format!("{user}.kubeconfig"));
    let ca = std::fs::read_to_string(server.directory().join("gateway-ca.crt")).unwrap();
    let url = format!("https://{}/clusters/{NAME}", server.gateway);
    write_kubeconfig(&path, &url, &ca, &Credential::Token(token)).unwrap();
    path
}

/// A role and its binding, as documents that the embedded policy and Kubernetes read alike.
fn role(name: &str, rules: &Value, users: &[&str]) -> [Value; 2] {
    let group = "rbac.authorization.k8s.io";
    let subject = |user: &&str| json!({ "apiGroup": group, "kind": "User", "name": user });
    let subjects: Vec<Value> = users.iter().map(subject).collect();
    let version = format!("{group}/v1");
    [
        json!({ "apiVersion": version, "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules }),
        json!({
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": { "name": name },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": name },
            "subjects": subjects,
        }),
    ]
}

/// Rules that let somebody reach the cluster.
fn reach() -> Value {
    json!([{ "apiGroups": ["moorline.io"], "resources": ["managedclusters"], "resourceNames": [NAME], "verbs": ["get"] }])
}

impl House {
    /// A service account of the management cluster: its uid and its token.
    async fn account(&self, name: &str) -> (String, String) {
        let accounts = "/api/v1/namespaces/apps/serviceaccounts";
        let api = self.management.api();
        api.create(accounts, &json!({ "metadata": { "name": name } })).await.unwrap();
        let request = json!({ "spec": { "expirationSeconds": 3600 } });
        let made = api.call(Method::POST, &format!("{accounts}/{name}/token"), Some(&request)).await.unwrap();
        let token = made.ok().unwrap()["status"]["token"].as_str().unwrap().to_owned();
        self.logs.forbid(&token);
        let account = api.get(&format!("{accounts}/{name}")).await.unwrap();
        let uid = account["metadata"]["uid"].as_str().unwrap().to_owned();
        (uid, token)
    }

    /// Somebody by their token.
    fn client(&self, token: &str) -> Client {
        self.server.admin_client().unwrap().with_token(token)
    }

    /// Lets an account reach the cluster.
    async fn bind(&self, name: &str) {
        self.create(&role(name, &reach(), &[&format!("system:serviceaccount:apps:{name}")])).await;
    }

    /// Creates a role and its binding in the management cluster.
    async fn create(&self, [role, binding]: &[Value; 2]) {
        let api = self.management.api();
        api.create(&format!("{RBAC}/clusterroles"), role).await.unwrap();
        api.create(&format!("{RBAC}/clusterrolebindings"), binding).await.unwrap();
    }

    async fn delete(&self, path: &str) {
        self.management.api().call(Method::DELETE, path, None).await.unwrap().ok().unwrap();
    }
}

fn at(cluster: &str, path: &str) -> String {
    format!("/clusters/{cluster}{path}")
}

async fn until(client: &Client, code: StatusCode) -> Answer {
    let version = at(NAME, "/version");
    let asked = async || client.get(&version).await.ok().filter(|answer| answer.code == code);
    match eventually(EFFECTIVE, asked).await {
        Ok(answer) => answer,
        Err(late) => panic!("{late:?} for {code}, instead of {:?}", client.get(&version).await),
    }
}

/// A watch that has begun.
async fn watch(client: &Client) -> Incoming {
    // From whatever state is known: for the newest, kube-apiserver may give up waiting after three seconds.
    let path = at(NAME, "/api/v1/namespaces/shops/configmaps?watch=true&resourceVersion=0&timeoutSeconds=600");
    let response = client.send(client.request(Method::GET, &path)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"{\"type\":\"ADDED\""), "{first:?}");
    body
}

async fn ends(watch: Incoming) {
    tokio::time::timeout(EFFECTIVE, watch.collect()).await.expect("the watch goes on").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_the_management_cluster_says_who_and_where_and_the_managed_one_what() {
    let Some(house) = house("alone").await else { return };
    let (uid, till) = house.account("till").await;
    let till = house.client(&till);
    strangers_learn_nothing(&till).await;
    house.bind("till").await;
    until(&till, StatusCode::OK).await;
    arrives_whole(&till, &uid).await;
    the_managed_cluster_decides(&house, &till).await;

    let running = watch(&till).await;
    house.delete(&format!("{RBAC}/clusterrolebindings/till")).await;
    ends(running).await;
    until(&till, StatusCode::FORBIDDEN).await;

    house.bind("till").await;
    until(&till, StatusCode::OK).await;
    let running = watch(&till).await;
    house.delete("/api/v1/namespaces/apps/serviceaccounts/till").await;
    ends(running).await;
    until(&till, StatusCode::UNAUTHORIZED).await;

    down_and_up(&house).await;
}

async fn strangers_learn_nothing(till: &Client) {
    let mut answers = Vec::new();
    for name in [NAME, "no-such-cluster"] {
        let answer = till.get(&at(name, "/api/v1/pods")).await.unwrap();
        assert_eq!(answer.code, StatusCode::FORBIDDEN, "{answer:?}");
        answers.push(answer.body.replace(name, "NAME"));
    }
    assert_eq!(answers[0], answers[1]);
}

async fn arrives_whole(till: &Client, uid: &str) {
    let path = at(NAME, "/apis/authentication.k8s.io/v1/selfsubjectreviews");
    let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" }).to_string();
    let answer = till.ask(till.request_with(Method::POST, &path, moorline_testkit::client::full(body))).await.unwrap();
    let review: Value = serde_json::from_str(&answer.body).unwrap();
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:apps:till", "{review}");
    assert_eq!(user["uid"], uid, "{review}");
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:apps", "system:authenticated"]);
    assert_eq!(user["groups"], groups, "{review}");
    let credential = &user["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(credential.as_str().is_some_and(|id| id.starts_with("JTI=")), "{review}");
}

async fn the_managed_cluster_decides(house: &House, till: &Client) {
    let plane = &house.managed.plane;
    let maps = "/api/v1/namespaces/shops/configmaps";
    plane.api().create("/api/v1/namespaces", &json!({ "metadata": { "name": "shops" } })).await.unwrap();
    plane.api().create(maps, &json!({ "metadata": { "name": "prices" } })).await.unwrap();
    let refused = till.get(&at(NAME, maps)).await.unwrap();
    assert_eq!(refused.code, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("cannot list resource \\\"configmaps\\\""), "{}", refused.body);
    let rules = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"] }]);
    plane.grant("system:serviceaccount:apps:till", &rules).await.unwrap();
    let listed = till.get(&at(NAME, maps)).await.unwrap();
    assert!(listed.code == StatusCode::OK && listed.body.contains("prices"), "{listed:?}");
    let elsewhere = till.get(&at("no-such-cluster", maps)).await.unwrap();
    assert_eq!(elsewhere.code, StatusCode::FORBIDDEN, "still not told which clusters exist");
}

/// While nobody can be asked, nobody gets in; afterwards all is well by itself.
async fn down_and_up(house: &House) {
    let (_uid, desk) = house.account("desk").await;
    let desk = house.client(&desk);
    house.bind("desk").await;
    until(&desk, StatusCode::OK).await;
    house.management.stop_api_server();
    let answer = until(&desk, StatusCode::SERVICE_UNAVAILABLE).await;
    let status: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!("ServiceUnavailable")));
    for _ in 0..20 {
        let answer = desk.get(&at(NAME, "/version")).await.unwrap();
        assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    }
    // The admin is known without asking; what they may do is not.
    let admin = house.server.admin_client().unwrap();
    assert_eq!(admin.get("/v1/clusters").await.unwrap().code, StatusCode::SERVICE_UNAVAILABLE);
    house.management.start_api_server().await.unwrap();
    until(&desk, StatusCode::OK).await;
}

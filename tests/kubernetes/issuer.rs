//! People with tokens of a real Dex, in front of a real kube-apiserver: who they are there, what happens when Dex has
//! new keys or is away, and when a token ends while something runs.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use moorline_testkit::client::{Answer, Client, LIMIT, full};
use moorline_testkit::eventually;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::kubernetes::{Credential, Dex, DexOptions, Kubectl, Person, PodSpec, write_kubeconfig};
use moorline_testkit::logs::Logs;
use serde_json::{Value, json};

use crate::kube::{Kube, Running};
use crate::stage::cluster;

pub(crate) const ANN: Person =
    Person { id: "ann", email: "ann@example.com", password: "anns-password-5d1c", groups: &["developers", "on-call"] };
const BEN: Person =
    Person { id: "ben", email: "ben@example.com", password: "bens-password-77ab", groups: &["visitors"] };
/// Asks for names that belong to Kubernetes.
const MALLORY: Person = Person {
    id: "mallory",
    email: "mallory@example.com",
    password: "mallorys-password-0f",
    groups: &["system:masters"],
};

/// Who Ann is behind Moorline.
pub(crate) const ANN_THERE: &str = "oidc:ann@example.com";
const GROUPS_THERE: [&str; 3] = ["oidc:developers", "oidc:on-call", "system:authenticated"];

/// What may pass between the end of a token and the end of what runs by it, in seconds: what clocks may differ by, what
/// is remembered, the interval of looking again, and a busy machine.
const LATE: u64 = 10 + 1 + 1 + 30;

const POLICY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reach}
rules: [{apiGroups: [moorline.io], resources: [managedclusters], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reach}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "oidc:developers"}
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:masters"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reach}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: administer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: admin}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: administer}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: administer}
rules: [{apiGroups: [moorline.io], resources: [managedclusters], verbs: ["*"]}]
"#;

/// A Moorline that believes a Dex, in front of a real kube-apiserver in which Ann may do everything.
pub(crate) struct Rig {
    pub(crate) dex: Dex,
    pub(crate) server: Server,
    pub(crate) name: &'static str,
    _agent: Agent,
    logs: Logs,
}

impl Rig {
    pub(crate) async fn build(name: &'static str, options: DexOptions) -> Option<Self> {
        let logs = Logs::capture();
        let plane = &cluster(0).await?.plane;
        let dex = Dex::start(plane.tools(), &[ANN, BEN, MALLORY], options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("authentication.yaml");
        std::fs::write(&config, believing(&dex)).unwrap();
        let tokens = "admins-token-3c9d1f,admin,admin-uid\n";
        moorline_process::write_private(&directory.path().join("tokens.csv"), tokens.as_bytes()).unwrap();
        moorline_process::write_private(&directory.path().join("policy.yaml"), POLICY.as_bytes()).unwrap();
        let text = |text: &str| Some(text.to_owned());
        let server = Server::start_in(directory, |raw| {
            raw.heartbeat_interval = text("1s");
            raw.recheck_interval = text("1s");
            raw.oidc.authentication_config = Some(config);
            raw.oidc.oidc_cache_time = text("1s");
        });
        let server = server.await.unwrap();
        plane.grant_everything(ANN_THERE).await.unwrap();
        let agent = crate::tunnel::enroll_in(&server, name, plane, name).await;
        Some(Self { dex, server, name, _agent: agent, logs })
    }

    async fn token(&self, client: &str, person: &Person) -> String {
        let token = self.dex.token(client, person).await.unwrap();
        self.logs.forbid(&token);
        token
    }

    fn client(&self, token: &str) -> Client {
        self.server.admin_client().unwrap().with_token(token)
    }

    fn path(&self, path: &str) -> String {
        format!("/clusters/{}{path}", self.name)
    }

    /// A `kubectl exec` in the middle of a talk.
    async fn exec(&self, token: &str) -> Running {
        let managed = cluster(0).await.unwrap();
        let pod = PodSpec { namespace: self.name.to_owned(), ..PodSpec::idle("idle") };
        managed.plane.add_pod(&managed.node, &pod).await.unwrap();
        let kubeconfig = self.server.directory().join("ann.kubeconfig");
        let ca = std::fs::read_to_string(self.server.directory().join("gateway-ca.crt")).unwrap();
        let url = format!("https://{}/clusters/{}", self.server.gateway, self.name);
        write_kubeconfig(&kubeconfig, &url, &ca, &Credential::Token(token)).unwrap();
        let (tools, prefix, namespace) = (managed.plane.tools().clone(), String::new(), self.name.to_owned());
        let kube = Kube { tools, version: Kubectl::New, kubeconfig, prefix, namespace };
        let mut exec = kube.start(&["exec", "-i", "idle", "--", "cat"]);
        exec.say("hello\n").await;
        assert_eq!(exec.line().await, "hello");
        exec
    }

    /// Asks the managed kube-apiserver who one is.
    async fn who(&self, token: &str) -> Answer {
        let client = self.client(token);
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" }).to_string();
        let path = self.path("/apis/authentication.k8s.io/v1/selfsubjectreviews");
        let mut request = client.request_with(Method::POST, &path, full(review));
        request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        client.ask(request).await.unwrap()
    }

    async fn code(&self, token: &str) -> StatusCode {
        self.client(token).get(&self.path("/version")).await.unwrap().code
    }

    /// Waits until a token is answered with `code`.
    async fn until(&self, token: &str, code: StatusCode) {
        eventually(LIMIT, async || (self.code(token).await == code).then_some(())).await.unwrap();
    }
}

/// A configuration that believes a Dex.
fn believing(dex: &Dex) -> String {
    let rules = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": { "url": dex.issuer(), "audiences": ["moorline"], "certificateAuthority": dex.authority_pem() },
            "claimMappings": {
                "username": { "claim": "email", "prefix": "oidc:" },
                "groups": { "claim": "groups", "prefix": "oidc:" },
                "uid": { "claim": "sub" },
                "extra": [{ "key": "example.com/issuer", "valueExpression": "claims.iss" }],
            },
        }],
    });
    // JSON is YAML.
    rules.to_string()
}

/// Which key signed a token.
fn key_of(token: &str) -> String {
    use base64::Engine as _;
    let head = token.split('.').next().unwrap();
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).unwrap();
    serde_json::from_slice::<Value>(&head).unwrap()["kid"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_issuer_makes_the_user() {
    let Some(rig) = Rig::build("issued", DexOptions::default()).await else { return };
    let answer = rig.who(&rig.token("moorline", &ANN).await).await;
    assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
    let review: Value = serde_json::from_str(&answer.body).unwrap();
    let info = &review["status"]["userInfo"];
    assert_eq!((&info["username"], &info["groups"]), (&json!(ANN_THERE), &json!(GROUPS_THERE)));
    assert!(info["uid"].as_str().is_some_and(|uid| !uid.is_empty()), "{review}");
    assert_eq!(info["extra"]["example.com/issuer"], json!([rig.dex.issuer()]));

    let foreign = rig.who(&rig.token("somebody-else", &ANN).await).await;
    assert_eq!(foreign.code, StatusCode::UNAUTHORIZED, "a token for another audience: {}", foreign.body);
    assert_eq!(rig.code(&rig.token("moorline", &BEN).await).await, StatusCode::FORBIDDEN);
    assert_eq!(rig.code(&rig.token("moorline", &MALLORY).await).await, StatusCode::FORBIDDEN);
    let good = rig.token("moorline", &ANN).await;
    let (signed, _signature) = good.rsplit_once('.').unwrap();
    assert_eq!(rig.code(&format!("{signed}.AAAA")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.code(&good).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_may_go_and_come_back_with_other_keys() {
    let Some(rig) = Rig::build("absent", DexOptions::default()).await else { return };
    let old = rig.token("moorline", &ANN).await;
    assert_eq!(rig.code(&old).await, StatusCode::OK);
    let client = rig.client(&old);
    let path = rig.path("/api/v1/namespaces?watch=true&resourceVersion=0&timeoutSeconds=600");
    let mut watch = client.send(client.request(Method::GET, &path)).await.unwrap().into_body();
    let mut exec = rig.exec(&old).await;
    rig.dex.stop();
    rig.dex.token("moorline", &ANN).await.unwrap_err();
    // Longer than a user is remembered.
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(3) {
        assert_eq!(rig.code(&old).await, StatusCode::OK, "the issuer is away, its keys are not");
    }
    assert!(!ended(&mut watch, Duration::from_millis(100)).await, "nor is what runs");
    exec.say("still here\n").await;
    assert_eq!(exec.line().await, "still here");
    rig.dex.start_again().await.unwrap();
    let new = rig.token("moorline", &ANN).await;
    // Meanwhile the answer is 503, never 401: nobody throws a good token away.
    let known = eventually(LIMIT, async || match rig.code(&new).await {
        StatusCode::OK => Some(()),
        StatusCode::SERVICE_UNAVAILABLE => None,
        other => panic!("{other}"),
    });
    known.await.unwrap();
    // Its key is gone. It is so young that its key might still come, until the keys are fetched once more.
    rig.until(&old, StatusCode::UNAUTHORIZED).await;
    assert!(ended(&mut watch, Duration::from_secs(LATE)).await, "what runs ends with the key");
    let (code, ..) =
        tokio::time::timeout(Duration::from_secs(LATE), exec.end_with_rest()).await.expect("the exec goes on");
    assert_ne!(code, Some(0));
    assert_eq!(rig.code(&new).await, StatusCode::OK);
}

/// Whether a body ends within that time, however it does.
async fn ended(body: &mut Incoming, within: Duration) -> bool {
    let end = async { while let Some(Ok(_frame)) = body.frame().await {} };
    tokio::time::timeout(within, end).await.is_ok()
}

/// Dex looks for keys whose time is over every 30 seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_replaced_goes_on_for_its_tokens() {
    let options = DexOptions { signing_keys: Duration::from_secs(5), ..DexOptions::default() };
    let Some(rig) = Rig::build("rotated", options).await else { return };
    let old = rig.token("moorline", &ANN).await;
    assert_eq!(rig.code(&old).await, StatusCode::OK);
    let replaced = eventually(Duration::from_secs(90), async || {
        let token = rig.token("moorline", &ANN).await;
        (key_of(&token) != key_of(&old)).then_some(token)
    });
    let new = replaced.await.unwrap();
    rig.until(&new, StatusCode::OK).await;
    assert_eq!(rig.code(&old).await, StatusCode::OK, "Dex still publishes the key that signed it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_ends_with_its_token() {
    let life = Duration::from_secs(8);
    let Some(rig) = Rig::build("brief", DexOptions { id_tokens: life, ..DexOptions::default() }).await else { return };
    let began = Instant::now();
    let token = rig.token("moorline", &ANN).await;
    let client = rig.client(&token);
    // From whatever the kube-apiserver has at hand: one that has just started may not yet have the newest.
    let path = rig.path("/api/v1/namespaces?watch=true&resourceVersion=0&timeoutSeconds=600");
    let connections = [client.connect().await.unwrap(), client.connect_http2().await.unwrap()];
    let mut bodies = Vec::new();
    for mut connection in connections {
        let response = connection.send(client.request(Method::GET, &path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        bodies.push((response.version(), response.into_body(), connection));
    }
    let late = Duration::from_secs(life.as_secs() + LATE);
    for (version, mut body, _connection) in bodies {
        // However it ends, what counts is when.
        assert!(ended(&mut body, late).await, "over {version:?} it goes on");
        assert!(began.elapsed() >= life, "over {version:?} it ended with a good token: {:?}", began.elapsed());
    }
    assert_eq!(rig.code(&token).await, StatusCode::UNAUTHORIZED);
}

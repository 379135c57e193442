//! Agents with the rights that `moorline agent rbac` renders for their flags, and no others: all that their configuration
//! lets through works, and what it does not the kube-apiserver itself refuses, should somebody get hold of their token.

use http::{Method, StatusCode};
use moorline_agent::RawConfig;
use moorline_manifest::rbac::{Constrained, Wanted, render};
use moorline_testkit::client::{Answer, Client, LIMIT, full};
use moorline_testkit::eventually;
use moorline_testkit::house::{Agent, Server};
use moorline_testkit::kubernetes::{Credential, Kubectl};
use moorline_testkit::logs::Logs;
use serde_json::{Value, json};

use crate::kube::Kube;
use crate::stage::{Cluster, cluster};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Tokens and users of the management side, all in the group `dev` but the last.
const TOKENS: &str = "\
    least-admin-1d3a,admin,,\"moorline:admins\"\n\
    least-lea-77c2,lea,7,\"dev\"\n\
    least-root-90be,root,,\"dev\"\n\
    least-eve-4d15,eve,,\"dev\"\n\
    least-ops-6a01,lea@ops,,\"ops\"\n";
const LEA: &str = "least-lea-77c2";
const ROOT: &str = "least-root-90be";
const EVE: &str = "least-eve-4d15";
const OPS: &str = "least-ops-6a01";

const POLICY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all}
rules: [{apiGroups: [moorline.io], resources: [managedclusters], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: all}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:authenticated"}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: all}
"#;

struct House {
    server: Server,
    cluster: &'static Cluster,
    agent: Agent,
    /// kubectl with the agent's own token.
    thief: Kube,
    _logs: Logs,
}

impl House {
    /// An agent with these flags and the rights that they need.
    async fn with(name: &str, constrained: Option<Constrained>, flags: impl Fn(&mut RawConfig)) -> Option<Self> {
        let logs = Logs::capture();
        let cluster = cluster(0).await?;
        let plane = &cluster.plane;
        let token = plane.create_service_account(name, "agent").await.unwrap();
        logs.forbid(&token);
        let mut raw = RawConfig::default();
        flags(&mut raw);
        let wanted =
            Wanted { name: name.to_owned(), service_account: (name.to_owned(), "agent".to_owned()), constrained };
        for object in render(&raw.acting.narrowing().unwrap(), &wanted).unwrap().objects {
            let object = serde_json::to_value(object).unwrap();
            plane.api().create(&path_of(&object), &object).await.unwrap();
        }

        let directory = tempfile::tempdir().unwrap();
        moorline_process::write_private(&directory.path().join("tokens.csv"), TOKENS.as_bytes()).unwrap();
        moorline_process::write_private(&directory.path().join("policy.yaml"), POLICY.as_bytes()).unwrap();
        let server = Server::start_in(directory, |_| {}).await.unwrap();
        let created = server.create(name).await.unwrap();
        let files = plane.directory().join(format!("agent-of-{name}"));
        std::fs::create_dir_all(&files).unwrap();
        let (token_file, ca_file) = (files.join("token"), files.join("ca.crt"));
        moorline_process::write_private(&token_file, token.as_bytes()).unwrap();
        std::fs::write(&ca_file, plane.ca_pem()).unwrap();
        let agent = Agent::start(&created, server.tunnel, &plane.url(), |raw| {
            flags(raw);
            raw.kube_token_file = Some(token_file);
            raw.kube_ca_file = Some(ca_file);
        })
        .unwrap();
        let thief = Kube {
            tools: plane.tools().clone(),
            version: Kubectl::New,
            kubeconfig: plane.kubeconfig(&format!("thief-{name}"), &Credential::Token(&token)).unwrap(),
            prefix: String::new(),
            namespace: "default".into(),
        };
        let house = Self { server, cluster, agent, thief, _logs: logs };
        let lea = house.user(LEA);
        let version = format!("/clusters/{name}/version");
        let through = async || lea.get(&version).await.ok().filter(|answer| answer.code == StatusCode::OK);
        if eventually(LIMIT * 2, through).await.is_err() {
            panic!("lea does not get through: {:?}", lea.get(&version).await);
        }
        Some(house)
    }

    fn user(&self, token: &str) -> Client {
        self.server.admin_client().unwrap().with_token(token)
    }

    /// Whom the kube-apiserver takes a user of the management side for.
    async fn whoami(&self, name: &str, token: &str) -> Answer {
        let client = self.user(token);
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" }).to_string();
        let path = format!("/clusters/{name}/apis/authentication.k8s.io/v1/selfsubjectreviews");
        let mut request = client.request_with(Method::POST, &path, full(review));
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        client.ask(request).await.unwrap()
    }

    /// What becomes of somebody who has the agent's token and asks as somebody else.
    async fn steals(&self, acting: &[&str]) -> bool {
        let ended = self.thief.run(&[&["get", "--raw", "/version"], acting].concat()).await;
        assert!(ended.code == Some(0) || ended.stderr.contains("(Forbidden)"), "{acting:?}: {ended:?}");
        ended.code == Some(0)
    }

    /// The agent's account itself may read what the agent does, and nothing else.
    async fn is_nobody(&self) {
        self.thief.ok(&["get", "namespace", "kube-system"]).await;
        for more in [&["get", "secrets"][..], &["get", "namespaces"], &["get", "namespace", "default"]] {
            let ended = self.thief.run(more).await;
            assert!(ended.stderr.contains("(Forbidden)"), "{more:?}: {ended:?}");
        }
    }

    async fn refused_by_the_agent(&self) -> f64 {
        self.agent.metric("moorline_agent_requests_refused_total", &["identity"]).await.unwrap()
    }
}

fn path_of(object: &Value) -> String {
    let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{RBAC}/namespaces/{namespace}/{plural}"),
        None => format!("{RBAC}/{plural}"),
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_all_that_the_agent_can_be() {
    const NAME: &str = "least-names";
    let flags = |raw: &mut RawConfig| {
        (raw.acting.user_prefix, raw.acting.group_prefix) = (Some("hub:".to_owned()), Some("hub:".to_owned()));
        raw.acting.map_users = owned(&["root=local-root"]);
        raw.acting.allow_users = owned(&["hub:lea", "local-root", "system:serviceaccount:default:till"]);
        raw.acting.allow_groups = owned(&["hub:dev"]);
        raw.acting.extra_keys = owned(&["example.com/team"]);
        raw.acting.no_uid = true;
    };
    let Some(house) = House::with(NAME, None, flags).await else { return };
    for (token, user) in [(LEA, "hub:lea"), (ROOT, "local-root")] {
        let answer = house.whoami(NAME, token).await;
        assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        let info = &said["status"]["userInfo"];
        assert_eq!((&info["username"], &info["uid"]), (&json!(user), &Value::Null), "{info}");
        assert_eq!(info["groups"], json!(["hub:dev", "system:authenticated"]));
    }
    let before = house.refused_by_the_agent().await;
    for token in [EVE, OPS] {
        assert_eq!(house.whoami(NAME, token).await.code, StatusCode::FORBIDDEN);
    }
    assert_eq!(house.refused_by_the_agent().await - before, 2.0);
    house.is_nobody().await;
    for (acting, good) in [
        (&["--as=hub:lea"][..], true),
        (&["--as=local-root", "--as-group=hub:dev", "--as-group=system:authenticated"], true),
        (&["--as=hub:lea", "--as-user-extra=example.com/team=a"], true),
        (&["--as=hub:lea", "--as-user-extra=example.com/other=a"], false),
        (&["--as=hub:lea", "--as-uid=1"], false),
        (&["--as=hub:lea", "--as-group=hub:ops"], false),
        (&["--as=hub:lea", "--as-group=system:masters"], false),
        (&["--as=hub:eve"], false),
        (&["--as=lea"], false),
        (&["--as=system:admin"], false),
        (&["--as=system:serviceaccount:default:till"], false),
    ] {
        assert_eq!(house.steals(acting).await, good, "{acting:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_for_everybody_can_be_anybody_and_do_nothing_itself() {
    const NAME: &str = "least-open";
    let flags = |raw: &mut RawConfig| {
        raw.acting.map_users = owned(&["root=system:serviceaccount:least-open:agent"]);
    };
    let Some(house) = House::with(NAME, None, flags).await else { return };
    let answer = house.whoami(NAME, ROOT).await;
    assert!(answer.body.contains("system:serviceaccount:least-open:agent"), "{}", answer.body);
    let said: Value = serde_json::from_str(&house.whoami(NAME, LEA).await.body).unwrap();
    assert_eq!(said["status"]["userInfo"]["uid"], "7");
    house.is_nobody().await;
    for acting in [
        &["--as=anybody", "--as-group=any", "--as-uid=1", "--as-user-extra=any=a", "--as-user-extra=example.com/b=c"][..],
        &["--as=system:serviceaccount:default:till"],
    ] {
        assert!(house.steals(acting).await, "{acting:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_service_account_is_not_its_neighbour() {
    const NAME: &str = "least-account";
    let flags = |raw: &mut RawConfig| {
        raw.acting.allow_users = owned(&["lea", "system:serviceaccount:default:till"]);
    };
    let Some(house) = House::with(NAME, None, flags).await else { return };
    for (account, good) in [("default:till", true), ("default:bill", false), ("least-account:till", false)] {
        let acting = format!("--as=system:serviceaccount:{account}");
        assert_eq!(house.steals(&[&acting]).await, good, "{account}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn constrained_impersonation_bounds_what_users_do_through_the_agent() {
    const NAME: &str = "least-constrained";
    let flags = |raw: &mut RawConfig| {
        raw.acting.allow_users = owned(&["lea", "system:serviceaccount:default:till"]);
        raw.acting.allow_groups = owned(&["dev"]);
        raw.acting.extra_keys = owned(&["example.com/team"]);
    };
    let resources = owned(&["configmaps", "pods", "pods/exec", "selfsubjectreviews.authentication.k8s.io"]);
    let reading = Constrained { verbs: owned(&["get", "list", "watch"]), resources };
    let Some(house) = House::with(NAME, Some(reading), flags).await else { return };
    house.cluster.plane.grant_everything("lea").await.unwrap();
    let lea = house.user(LEA);
    let maps = format!("/clusters/{NAME}/api/v1/namespaces/default/configmaps");
    let listed = async || lea.get(&maps).await.ok().filter(|answer| answer.code == StatusCode::OK);
    eventually(LIMIT, listed).await.unwrap();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": NAME } }).to_string();
    let mut request = lea.request_with(Method::POST, &maps, full(map));
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let answer = lea.ask(request).await.unwrap();
    assert_eq!(answer.code, StatusCode::FORBIDDEN, "{}", answer.body);
    assert!(answer.body.contains("impersonate-on:user-info:create"), "{}", answer.body);
    let code = async |path: &str| lea.get(&format!("/clusters/{NAME}{path}")).await.unwrap().code;
    assert_eq!(code("/api/v1/namespaces/default/secrets").await, StatusCode::FORBIDDEN);
    assert_eq!(code("/api/v1/namespaces/default/pods/no/log").await, StatusCode::FORBIDDEN);
    // Commands are run over a WebSocket, which begins with a GET: whoever may only read must not be given this part.
    assert_eq!(code("/api/v1/namespaces/default/pods/no/exec?command=a&stdout=1").await, StatusCode::NOT_FOUND);
    house.is_nobody().await;
    for (acting, good) in [
        (&["--as=lea", "--as-group=dev", "--as-group=system:authenticated", "--as-uid=7"][..], true),
        (&["--as=lea", "--as-user-extra=example.com/team=a"], true),
        (&["--as=lea", "--as-user-extra=example.com/other=a"], false),
        (&["--as=lea", "--as-group=ops"], false),
        (&["--as=lea", "--as-group=system:masters"], false),
        (&["--as=bob"], false),
        (&["--as=system:serviceaccount:default:till"], false),
    ] {
        assert_eq!(house.steals(acting).await, good, "{acting:?}");
    }
    let events = house.cluster.plane.audit_events("impersonationConstraint").unwrap();
    assert!(events.iter().any(|event| event["impersonatedUser"]["username"] == "lea"), "{}", events.len());
}

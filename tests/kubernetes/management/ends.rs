//! Whoever is at work when their right or their credential is taken stops working: a watch and a real `kubectl exec` end
//! within the time for which answers are remembered and one look more, and the next request is refused.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use moorline_testkit::client::Client;
use moorline_testkit::house::Server;
use moorline_testkit::kubernetes::PodSpec;
use moorline_testkit::logs::Logs;
use serde_json::json;

use super::{
    ADMIN, DEPUTY, EFFECTIVE, House, NAME, PLAIN, RBAC, WALTER, WENDY, ends, kubectl, reach, role, second, shared,
    tokens, until, watch,
};
use crate::kube::{Kube, Running};
use crate::stage::{Cluster, cluster};
use crate::tunnel::enroll_in;

/// In which it is asked again several times, whatever was remembered.
const LOOKS: Duration = Duration::from_secs(4);

/// Somebody's work: both kinds of requests that run long.
struct Work {
    watch: Incoming,
    exec: Running,
    client: Client,
    kube: Kube,
}

impl Work {
    /// Begins, with every right in the managed cluster that it takes.
    async fn begin(server: &Server, managed: &Cluster, user: &str, name: &str, token: &str) -> Self {
        let kinds = ["pods", "pods/exec", "configmaps"];
        let rules = json!([{ "apiGroups": [""], "resources": kinds, "verbs": ["get", "list", "watch", "create"] }]);
        managed.plane.grant(user, &rules).await.unwrap();
        let client = server.admin_client().unwrap().with_token(token);
        until(&client, StatusCode::OK).await;
        let kube = kubectl(server, managed, name, token);
        let mut work = Self { watch: watch(&client).await, exec: exec(&kube).await, client, kube };
        work.goes_on().await;
        work
    }

    /// Nothing ends of what is asked about again and again with a yes.
    async fn goes_on(&mut self) {
        let end = tokio::time::Instant::now() + LOOKS;
        while let Ok(frame) = tokio::time::timeout_at(end, self.watch.frame()).await {
            assert!(frame.expect("the watch ended").unwrap().is_data());
        }
        self.exec.say("still here\n").await;
        assert_eq!(self.exec.line().await, "still here");
    }

    /// Asserts that it ends, and that nothing more begins.
    async fn comes_to_an_end(self, code: StatusCode) {
        let Self { watch, exec, client, kube } = self;
        let exec = async {
            let (code, rest, complaint) =
                tokio::time::timeout(EFFECTIVE, exec.end_with_rest()).await.expect("the exec goes on");
            assert!(code != Some(0) && rest.is_empty(), "{code:?} {rest} {complaint}");
        };
        tokio::join!(ends(watch), exec);
        until(&client, code).await;
        let again = kube.run(&["exec", "idle", "--", "true"]).await;
        assert_eq!(again.code, Some(1), "{again:?}");
    }
}

/// A `kubectl exec` in the middle of a talk.
async fn exec(kube: &Kube) -> Running {
    let mut exec = kube.start(&["exec", "-i", "idle", "--", "cat"]);
    exec.say("hello\n").await;
    assert_eq!(exec.line().await, "hello");
    exec
}

/// What they work with.
async fn furnish(managed: &Cluster) {
    for namespace in ["apps", "shops"] {
        let object = json!({ "metadata": { "name": namespace } });
        managed.plane.api().create("/api/v1/namespaces", &object).await.unwrap();
    }
    let map = json!({ "metadata": { "name": "prices" } });
    managed.plane.api().create("/api/v1/namespaces/shops/configmaps", &map).await.unwrap();
    let pod = PodSpec { namespace: "apps".to_owned(), ..PodSpec::idle("idle") };
    managed.plane.add_pod(&managed.node, &pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_work_ends_with_the_right_and_with_the_credential() {
    let Some(house) = shared().await else { return };
    furnish(house.managed).await;
    let begin = async |name: &str| {
        let (_uid, token) = house.account(name).await;
        house.bind(name).await;
        let user = format!("system:serviceaccount:apps:{name}");
        Work::begin(&house.server, house.managed, &user, name, &token).await
    };
    let work = begin("unbound").await;
    house.delete(&format!("{RBAC}/clusterrolebindings/unbound")).await;
    work.comes_to_an_end(StatusCode::FORBIDDEN).await;

    let work = begin("deleted").await;
    house.delete("/api/v1/namespaces/apps/serviceaccounts/deleted").await;
    work.comes_to_an_end(StatusCode::UNAUTHORIZED).await;

    house.create(&role(WALTER.1, &reach(), &[WALTER.1])).await;
    let work = Work::begin(&house.server, house.managed, WALTER.1, WALTER.1, WALTER.0).await;
    let without = tokens(&house.logs, &[ADMIN, DEPUTY, PLAIN, WENDY]);
    moorline_process::write_private(&house.server.directory().join("tokens.csv"), without.as_bytes()).unwrap();
    work.comes_to_an_end(StatusCode::UNAUTHORIZED).await;
    acting(house).await;
}

/// One who acts as somebody else, until only the right to act is taken from them.
async fn acting(house: &House) {
    let act =
        json!([{ "apiGroups": [""], "resources": ["users"], "resourceNames": ["wilma"], "verbs": ["impersonate"] }]);
    house.create(&role("act-as-wilma", &act, &[WENDY.1])).await;
    house.create(&role("wilma", &reach(), &["wilma"])).await;
    let rules = json!([{ "apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["get", "create"] }]);
    house.managed.plane.grant("wilma", &rules).await.unwrap();
    let kube = kubectl(&house.server, house.managed, WENDY.1, WENDY.0);
    let first = ["exec", "-i", "idle", "--as=wilma", "--", "cat"];
    let may = async || (kube.run(&["exec", "idle", "--as=wilma", "--", "true"]).await.code == Some(0)).then_some(());
    moorline_testkit::eventually(EFFECTIVE, may).await.unwrap();
    let mut exec = kube.start(&first);
    exec.say("hello\n").await;
    assert_eq!(exec.line().await, "hello");
    house.delete(&format!("{RBAC}/clusterrolebindings/act-as-wilma")).await;
    let ended = tokio::time::timeout(EFFECTIVE, exec.end_with_stdin_open()).await.expect("the exec goes on");
    assert_ne!(ended, Some(0));
    assert_eq!(kube.run(&first).await.code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_work_ends_with_the_line_of_a_policy_file() {
    let logs = Logs::capture();
    let Some(managed) = cluster(1).await else { return };
    furnish(managed).await;
    let directory = tempfile::tempdir().unwrap();
    let all = json!([{ "apiGroups": ["moorline.io"], "resources": ["managedclusters"], "verbs": ["*"] }]);
    let text = |roles: &[[serde_json::Value; 2]]| {
        roles.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n")
    };
    let (admins, users) = (role("all", &all, &[ADMIN.1]), role("users", &reach(), &[PLAIN.1]));
    let (before, after) = (text(&[admins.clone(), users]), text(&[admins]));
    let path = directory.path().join("policy.yaml");
    moorline_process::write_private(&path, before.as_bytes()).unwrap();
    let tokens = tokens(&logs, &[ADMIN, PLAIN]);
    moorline_process::write_private(&directory.path().join("tokens.csv"), tokens.as_bytes()).unwrap();
    let server = Server::start_in(directory, |raw| {
        raw.reload_interval = second();
        raw.recheck_interval = second();
    });
    let server = server.await.unwrap();
    let _agent = enroll_in(&server, NAME, &managed.plane, "moorline-ends").await;
    let work = Work::begin(&server, managed, PLAIN.1, PLAIN.1, PLAIN.0).await;
    moorline_process::write_private(&path, after.as_bytes()).unwrap();
    work.comes_to_an_end(StatusCode::FORBIDDEN).await;
}

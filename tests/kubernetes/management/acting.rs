//! `kubectl --as`, `--as-group`, `--as-uid` and extra values: each by a right to exactly that value, whoever decides.

use http::{HeaderName, Method, StatusCode};
use moorline_testkit::client::{Answer, Client, full};
use moorline_testkit::eventually;
use moorline_testkit::house::Server;
use moorline_testkit::logs::Logs;
use serde_json::{Value, json};

use super::{ADMIN, DEPUTY, EFFECTIVE, NAME, PLAIN, at, kubectl, reach, role, second, shared, tokens};
use crate::stage::{Cluster, cluster};
use crate::tunnel::enroll_in;

const ROBOT: &str = "system:serviceaccount:apps:robot";
/// What kubectl shows the words of a refusal of.
const PLAINLY: [&str; 3] = ["get", "--raw", "/version"];
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Whom the deputy may act as, value by value, and who may reach the cluster.
fn roles() -> [[Value; 2]; 2] {
    let right = |group: &str, resource: &str, values: Value| json!({ "apiGroups": [group], "resources": [resource], "resourceNames": values, "verbs": ["impersonate"] });
    let group = "authentication.k8s.io";
    let act = json!([
        right("", "users", json!(["rita"])),
        right("", "serviceaccounts", json!(["robot"])),
        right("", "groups", json!(["readers", "on-call"])),
        right(group, "uids", json!(["42"])),
        right(group, "userextras/authentication.kubernetes.io/pod-name", json!(["till-1", "till-2"])),
    ]);
    [role("act", &act, &[DEPUTY.1]), role("reach", &reach(), &["rita", ROBOT, "root", PLAIN.1])]
}

/// What kubectl is told, and whom the managed cluster then sees.
fn allowed() -> [(&'static [&'static str], Value); 5] {
    [
        (&["--as=rita"], json!({ "username": "rita", "groups": ["system:authenticated"] })),
        (
            &["--as=rita", "--as-group=readers", "--as-group=on-call"],
            json!({ "username": "rita", "groups": ["readers", "on-call", "system:authenticated"] }),
        ),
        (&["--as=rita", "--as-uid=42"], json!({ "username": "rita", "uid": "42", "groups": ["system:authenticated"] })),
        (
            &["--as=rita", "--as-group=readers", "--as-uid=42"],
            json!({ "username": "rita", "uid": "42", "groups": ["readers", "system:authenticated"] }),
        ),
        (
            &["--as=system:serviceaccount:apps:robot"],
            json!({
                "username": ROBOT,
                "groups": ["system:serviceaccounts", "system:serviceaccounts:apps", "system:authenticated"],
            }),
        ),
    ]
}

/// What is refused even to the deputy, and for which value.
const REFUSED: [(&[&str], &str, &str); 7] = [
    (&["--as=root"], "users", "root"),
    (&["--as=rit"], "users", "rit"),
    (&["--as=system:serviceaccount:apps:other"], "serviceaccounts", "other"),
    (&["--as=rita", "--as-group=admins"], "groups", "admins"),
    (&["--as=rita", "--as-group=readers", "--as-group=on-call", "--as-group=admins"], "groups", "admins"),
    (&["--as=rita", "--as-uid=43"], "uids.authentication.k8s.io", "43"),
    (&["--as=rita", "--as-group=readers", "--as-uid=4"], "uids.authentication.k8s.io", "4"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f29_acting_as_others_is_by_right_where_kubernetes_decides() {
    let Some(house) = shared().await else { return };
    for role in &roles() {
        house.create(role).await;
    }
    play(&house.server, house.managed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f29_acting_as_others_is_by_right_where_the_policy_file_decides() {
    let logs = Logs::capture();
    let Some(managed) = cluster(1).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let tokens = tokens(&logs, &[ADMIN, DEPUTY, PLAIN]);
    let all = json!([{ "apiGroups": ["moorline.io"], "resources": ["managedclusters"], "verbs": ["*"] }]);
    let roles = [role("all", &all, &[ADMIN.1])].into_iter().chain(roles());
    let policy = roles.flatten().map(|document| document.to_string()).collect::<Vec<_>>().join("\n---\n");
    moorline_process::write_private(&directory.path().join("tokens.csv"), tokens.as_bytes()).unwrap();
    moorline_process::write_private(&directory.path().join("policy.yaml"), policy.as_bytes()).unwrap();
    let server = Server::start_in(directory, |raw| raw.reload_interval = second()).await.unwrap();
    let _agent = enroll_in(&server, NAME, &managed.plane, "moorline-acting").await;
    play(&server, managed).await;
}

async fn play(server: &Server, managed: &Cluster) {
    let [deputy, plain] = [DEPUTY, PLAIN].map(|(token, user)| kubectl(server, managed, user, token));
    for (acting, seen) in allowed() {
        let ask = [&["auth", "whoami", "--output=json"], acting].concat();
        // The management cluster may take a moment to see roles that it has just stored.
        let shown = eventually(EFFECTIVE, || async {
            let ended = deputy.run(&ask).await;
            (ended.code == Some(0)).then(|| ended.text())
        });
        let shown = shown.await.unwrap_or_else(|late| panic!("{acting:?}: {late:?}"));
        let review: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(review["status"]["userInfo"], seen, "{acting:?}");
        let refused = plain.run(&[&PLAINLY, acting].concat()).await;
        assert_eq!(refused.code, Some(1), "{acting:?}: {refused:?}");
        assert!(refused.stderr.contains("User \"plain\" cannot impersonate"), "{refused:?}");
    }
    for (acting, resource, value) in REFUSED {
        let refused = deputy.run(&[&PLAINLY, acting].concat()).await;
        assert_eq!(refused.code, Some(1), "{acting:?}: {refused:?}");
        says(&refused.stderr, resource, value);
    }
    // One who may act as others has gained nothing for themselves.
    let own = deputy.run(&PLAINLY).await;
    assert!(own.code == Some(1) && own.stderr.contains("cannot get resource"), "{own:?}");
    extras(&server.admin_client().unwrap().with_token(DEPUTY.0)).await;
}

fn says(text: &str, resource: &str, value: &str) {
    let words = [format!("{resource} \"{value}\" is forbidden"), "User \"deputy\" cannot impersonate".to_owned()];
    let namespace = if resource == "serviceaccounts" { "in the namespace \"apps\"" } else { "" };
    assert!(words.iter().all(|words| text.contains(words)) && text.contains(namespace), "{text}");
}

/// Extra values, which no kubectl of these ages can ask for.
async fn extras(deputy: &Client) {
    const POD: &str = "impersonate-extra-authentication.kubernetes.io%2fpod-name";
    let act = async |extra: &[(&str, &str)]| -> Answer {
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" }).to_string();
        let mut request = deputy.request_with(Method::POST, &at(NAME, WHO), full(body));
        for (name, value) in [("impersonate-user", "rita")].iter().chain(extra) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        deputy.ask(request).await.unwrap()
    };
    let asked = async || Some(act(&[(POD, "till-1"), (POD, "till-2")]).await).filter(|seen| seen.code.is_success());
    let seen = eventually(EFFECTIVE, asked).await.unwrap();
    let review: Value = serde_json::from_str(&seen.body).unwrap();
    let extra = json!({ "authentication.kubernetes.io/pod-name": ["till-1", "till-2"] });
    assert_eq!(review["status"]["userInfo"]["extra"], extra, "{review}");
    for (extra, value) in [
        (&[(POD, "till-3")][..], "till-3"),
        (&[(POD, "till-1"), (POD, "till-3")], "till-3"),
        (&[(POD, "till-1"), ("impersonate-extra-scopes", "view")], "view"),
        (&[("impersonate-extra-pod-name", "till-1")], "till-1"),
    ] {
        let refused = act(extra).await;
        assert_eq!(refused.code, StatusCode::FORBIDDEN, "{extra:?}: {refused:?}");
        let status: Value = serde_json::from_str(&refused.body).unwrap();
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(value) && message.contains("cannot impersonate resource \"userextras"), "{message}");
    }
}

//! The embedded policy decides as a real kube-apiserver's RBAC does: the same roles, bindings and requests, asked of both.
//!
//! Everything is drawn from small vocabularies in which wildcards, subresources, names and prefixes collide often, from
//! a seed that stands in every failure. The users have no groups but those drawn, so Kubernetes' own roles (those of
//! `system:authenticated` and `system:masters`) say nothing here.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use moorline_access::{Attributes, Decision, Policy};
use moorline_model::Identity;
use moorline_testkit::kubernetes::ApiSession;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::stage::cluster;

/// From which everything is drawn.
const SEED: u64 = 20_261_121;
const ROLES: usize = 40;
const REQUESTS: usize = 500;
/// Reviews that run at once.
const AT_ONCE: usize = 16;

const RBAC: &str = "rbac.authorization.k8s.io";
const VERBS: &[&str] = &["get", "list", "watch", "create", "patch", "delete", "deletecollection", "impersonate", "GET"];
const GROUPS: &[&str] = &["", "apps", "moorline.io", "projectcalico.org", "authentication.k8s.io"];
const RESOURCES: &[&str] = &["pods", "deployments", "managedclusters", "users", "userextras", "pods/log"];
const PARTS: &[&str] = &["log", "exec", "scale", "scopes", "log/old", "*"];
const NAMES: &[&str] = &["east", "west", "web", "*", "east-2"];
const PATHS: &[&str] = &["/healthz", "/healthz/etcd", "/healthz/", "/metrics", "/logs/a", "/logs/a/b", "/", "/a*c"];
const URLS: &[&str] = &["/healthz", "/healthz/*", "/healthz*", "/logs/**", "/logs/a*", "/*", "*", "/a*c", "/metrics"];
const USERS: &[&str] = &["ann", "bob", "cid", "*", "system:serviceaccount:shop:till", "system:serviceaccount:shop:a:b"];
const MEMBERSHIPS: &[&str] = &["devs", "ops", "devs:east", "*", "ann"];

/// What somebody asks.
#[derive(Debug)]
struct Request {
    user: &'static str,
    groups: Vec<&'static str>,
    verb: &'static str,
    about: About,
}

#[derive(Debug)]
enum About {
    Path(&'static str),
    Object { group: &'static str, resource: &'static str, part: &'static str, name: &'static str, namespace: bool },
}

#[tokio::test]
async fn the_embedded_policy_decides_as_kube_apiserver_does() {
    let Some(cluster) = cluster(0).await else { return };
    let mut rng = StdRng::seed_from_u64(SEED);
    let objects = policy(&mut rng);
    let policy = Policy::parse(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()).unwrap();
    let session = cluster.plane.api().open().await.unwrap();
    for object in &objects {
        let kind = if object["kind"] == "ClusterRole" { "clusterroles" } else { "clusterrolebindings" };
        session.create(&format!("/apis/{RBAC}/v1/{kind}"), object).await.unwrap();
    }
    // Its caches see changes in their order: what was made before this counts when this does.
    let last = json!([{ "apiGroups": ["last.example"], "resources": ["things"], "verbs": ["get"] }]);
    cluster.plane.grant("the-last-user", &last).await.unwrap();

    let requests: Vec<Request> = corners().into_iter().chain((0..REQUESTS).map(|_| request(&mut rng))).collect();
    let theirs: Vec<bool> =
        stream::iter(&requests).map(|request| review(&session, request)).buffered(AT_ONCE).try_collect().await.unwrap();
    let mut differences = Vec::new();
    for (request, theirs) in requests.iter().zip(&theirs) {
        let ours = decide(&policy, request);
        if matches!(ours, Decision::Allow { .. }) != *theirs {
            differences.push(format!("ours {ours:?}, theirs {theirs}: {request:?}"));
        }
    }
    assert_eq!(differences, Vec::<String>::new(), "seed {SEED}; the policy was {}", json!(objects));
    let allowed = theirs.iter().filter(|allowed| **allowed).count();
    assert!((REQUESTS / 5..REQUESTS * 4 / 5).contains(&allowed), "{allowed} allowed: the draw says little");
}

/// What random draws hit too seldom.
fn corners() -> Vec<Request> {
    let ask = |resource, part, name| Request {
        user: "corner",
        groups: Vec::new(),
        verb: "get",
        about: About::Object { group: "corner.example", resource, part, name, namespace: false },
    };
    let mut asked = Vec::new();
    for resource in ["things", "things/part", "others", "*"] {
        for part in ["", "part", "part/of", "*"] {
            for name in ["", "one", "*"] {
                asked.push(ask(resource, part, name));
            }
        }
    }
    asked
}

fn policy(rng: &mut StdRng) -> Vec<Value> {
    let meta = |kind: &str, name: &str| {
        let version = format!("{RBAC}/v1");
        json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name } })
    };
    let mut objects = Vec::new();
    let mut add = |name: String, rules: Value, subjects: Value| {
        let (mut role, mut binding) = (meta("ClusterRole", &name), meta("ClusterRoleBinding", &name));
        role["rules"] = rules;
        binding["roleRef"] = json!({ "apiGroup": RBAC, "kind": "ClusterRole", "name": name });
        binding["subjects"] = subjects;
        objects.extend([role, binding]);
    };
    let corner = |resources: &[&str], names: &[&str]| json!({ "apiGroups": ["corner.example"], "resources": resources, "resourceNames": names, "verbs": ["get"] });
    let corners = json!([
        corner(&["things/part"], &["one"]),
        corner(&["*/part/of"], &[]),
        corner(&["others/*"], &[]),
        // A name that is empty stands for requests without one.
        corner(&["others"], &[""]),
    ]);
    add("differ-corners".to_owned(), corners, json!([{ "kind": "User", "name": "corner", "apiGroup": RBAC }]));
    for number in 0..ROLES {
        let rules: Vec<Value> = (0..rng.random_range(1..4)).map(|_| rule(rng)).collect();
        let subjects: Vec<Value> = (0..rng.random_range(0..3)).map(|_| subject(rng)).collect();
        add(format!("differ-{number}"), json!(rules), json!(subjects));
    }
    objects
}

fn rule(rng: &mut StdRng) -> Value {
    let verbs = some(rng, VERBS, 0.08);
    if rng.random_bool(0.3) {
        return json!({ "nonResourceURLs": [pick(rng, URLS), pick(rng, URLS)], "verbs": verbs });
    }
    let resources: Vec<String> = (0..rng.random_range(1..4))
        .map(|_| match rng.random_range(0..10) {
            0 => "*".to_owned(),
            1 | 2 => format!("*/{}", pick(rng, PARTS)),
            3..6 => format!("{}/{}", pick(rng, RESOURCES), pick(rng, PARTS)),
            _ => pick(rng, RESOURCES).to_owned(),
        })
        .collect();
    let mut rule = json!({ "apiGroups": some(rng, GROUPS, 0.2), "resources": resources, "verbs": verbs });
    if rng.random_bool(0.4) {
        rule["resourceNames"] = json!([pick(rng, NAMES), pick(rng, NAMES)]);
    }
    rule
}

fn subject(rng: &mut StdRng) -> Value {
    match rng.random_range(0..5) {
        0 => json!({ "kind": "ServiceAccount", "namespace": "shop", "name": "till" }),
        1 | 2 => json!({ "kind": "Group", "apiGroup": RBAC, "name": pick(rng, MEMBERSHIPS) }),
        _ => json!({ "kind": "User", "apiGroup": RBAC, "name": pick(rng, USERS) }),
    }
}

fn request(rng: &mut StdRng) -> Request {
    let groups = (0..rng.random_range(0..3)).map(|_| pick(rng, MEMBERSHIPS)).collect();
    let about = if rng.random_bool(0.25) {
        About::Path(pick(rng, PATHS))
    } else {
        About::Object {
            group: pick(rng, GROUPS),
            resource: pick(rng, RESOURCES),
            part: if rng.random_bool(0.4) { pick(rng, PARTS) } else { "" },
            name: if rng.random_bool(0.6) { pick(rng, NAMES) } else { "" },
            namespace: rng.random(),
        }
    };
    let verb = if rng.random_bool(0.03) { "*" } else { pick(rng, VERBS) };
    Request { user: pick(rng, USERS), groups, verb, about }
}

fn pick(rng: &mut StdRng, words: &[&'static str]) -> &'static str {
    words[rng.random_range(0..words.len())]
}

/// One to three of these words, or all of them.
fn some(rng: &mut StdRng, words: &[&'static str], all: f64) -> Vec<&'static str> {
    if rng.random_bool(all) {
        return vec!["*"];
    }
    (0..rng.random_range(1..4)).map(|_| pick(rng, words)).collect()
}

fn decide(policy: &Policy, request: &Request) -> Decision {
    let who = Identity::new(request.user).unwrap().with_groups(request.groups.iter().copied()).unwrap();
    let given = |text: &'static str| (!text.is_empty()).then_some(text);
    let what = match request.about {
        About::Path(path) => Attributes { non_resource_path: Some(path), ..Attributes::default() },
        About::Object { group, resource, part, name, namespace } => Attributes {
            api_group: group,
            resource,
            subresource: given(part),
            name: given(name),
            namespace: namespace.then_some("shop"),
            ..Attributes::default()
        },
    };
    policy.decide(&who, &Attributes { verb: request.verb, ..what })
}

async fn review(session: &ApiSession, request: &Request) -> anyhow::Result<bool> {
    let mut spec = json!({ "user": request.user, "groups": request.groups });
    match request.about {
        About::Path(path) => spec["nonResourceAttributes"] = json!({ "path": path, "verb": request.verb }),
        About::Object { group, resource, part, name, namespace } => {
            spec["resourceAttributes"] = json!({
                "verb": request.verb, "group": group, "resource": resource, "subresource": part, "name": name,
                "namespace": if namespace { "shop" } else { "" },
            });
        }
    }
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = session.call(Method::POST, path, Some(&json!({ "spec": spec }))).await?.ok()?;
    answer["status"]["allowed"].as_bool().ok_or_else(|| anyhow::anyhow!("no decision: {answer}"))
}

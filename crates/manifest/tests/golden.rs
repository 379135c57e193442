//! Manifests as they are: rendered from values, held against the files of `golden`. Their like must not change unseen.
//!
//! `MOORLINE_GOLDEN=write cargo test --package moorline-manifest --test golden` writes them anew, for review.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path};

use moorline_impersonation::{Narrowing, Passed};
use moorline_manifest::{
    Node,
    agent::{Acting, Address, Certificates, Credential, Install, Manifest, Written},
    guardian,
};

/// The version in the names of images.
const VERSION: &str = "1.2.3";

fn everybody() -> Acting {
    Acting { arguments: Vec::new(), narrowing: Narrowing::default() }
}

fn some() -> Acting {
    let arguments =
        ["--allow-user=ann", "--allow-user=system:serviceaccount:shop:till", "--allow-group=dev", "--no-extra"];
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let narrowing = Narrowing {
        allow_users: owned(&["ann", "system:serviceaccount:shop:till"]),
        allow_groups: owned(&["dev"]),
        passed: Passed { uid: true, extra: Some(BTreeSet::new()) },
        ..Narrowing::default()
    };
    Acting { arguments: owned(&arguments), narrowing }
}

fn everything() -> Written {
    let text = |text: &str| Some(text.to_owned());
    Written {
        namespace: text("tunnels"),
        image: text("registry.example.com/agent@sha256:0000"),
        image_pull_secrets: vec!["pull".to_owned()],
        replicas: Some(2),
        sessions: None,
        proxy: text("http://10.0.0.7:3128"),
        proxy_secret: text("proxy"),
        apiserver_cidrs: vec!["10.96.0.1/32".to_owned(), "fd00::1/128".to_owned()],
        apiserver_ports: vec![6443],
        services: vec!["store=:9200".to_owned(), "kibana=:5601".to_owned()],
        http_services: vec!["logs=:8080".to_owned()],
        node_selector: vec!["kubernetes.io/os=linux".to_owned()],
        tolerations: vec!["edge:NoSchedule".to_owned(), "spot=yes".to_owned()],
        cpu_request: text("100m"),
        memory_request: text("128Mi"),
        memory_limit: text("512Mi"),
    }
}

fn with<T>(install: &Install, address: &str, then: impl FnOnce(&Manifest<'_>) -> T) -> T {
    let certificates = Certificates { authorities: "AUTHORITIES\n", certificate: "CERTIFICATE\n", key: "KEY\n" };
    let (cluster, address) = ("west".parse().unwrap(), Address::parse(address, 9449).unwrap());
    let credential = Credential::Certificates(certificates);
    then(&Manifest { install, cluster: &cluster, address: &address, credential })
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the test says so when the files are to be written")]
fn held(name: &str, fresh: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var("MOORLINE_GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, fresh).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "{name} differs; write it anew and review it:\n{fresh}");
}

#[test]
fn an_agent_of_defaults() {
    let install = Written::default().resolve(VERSION, everybody()).unwrap();
    held("agent.yaml", &with(&install, "hub.example.com:9449", |manifest| manifest.stream().unwrap()));
}

#[test]
fn an_agent_with_everything() {
    let install = everything().resolve(VERSION, some()).unwrap();
    let stream = with(&install, "[2001:db8::1]:443", |manifest| manifest.stream().unwrap());
    held("agent-with-everything.yaml", &stream);
}

fn guardians(written: guardian::Written, credential: guardian::Credential<'_>) -> String {
    let (cluster, address) = ("west".parse().unwrap(), Address::parse("hub.example.com:9449", 9449).unwrap());
    let install = written.resolve().unwrap();
    guardian::Manifest { install: &install, cluster: &cluster, address: &address, credential }.stream().unwrap()
}

#[test]
fn a_guardian() {
    let certificates = Certificates { authorities: "AUTHORITIES\n", certificate: "CERTIFICATE\n", key: "KEY\n" };
    held("guardian.yaml", &guardians(guardian::Written::default(), guardian::Credential::Whole(certificates)));
}

#[test]
fn a_guardian_whose_certificate_was_brought_and_who_may_act_as_few() {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let written = guardian::Written {
        operator_namespace: Some("calico-operator".to_owned()),
        allow_users: owned(&["ann", "system:serviceaccount:shop:till"]),
        allow_groups: owned(&["dev"]),
    };
    held("guardian-narrowed.yaml", &guardians(written, guardian::Credential::Authorities("AUTHORITIES\n")));
}

#[test]
fn roles_cannot_say_what_a_guardian_does_not_do() {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let wrong = guardian::Written {
        operator_namespace: Some("-".to_owned()),
        allow_users: owned(&["dev-*", "ann"]),
        allow_groups: owned(&[""]),
    };
    let problems = wrong.resolve().unwrap_err();
    let fields: Vec<_> = problems.iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["--operator-namespace", "--allow-user", "--allow-group"]);
    assert_eq!(guardian::Written::default().resolve().unwrap().remarks().len(), 2);
}

/// The Secret alone is another, and one argument more.
#[test]
fn an_agent_that_joins() {
    let install = Written::default().resolve(VERSION, everybody()).unwrap();
    let (cluster, address) = ("west".parse().unwrap(), Address::parse("hub.example.com:9449", 9449).unwrap());
    let credential = Credential::JoinToken("moorline-join.x");
    let joining = Manifest { install: &install, cluster: &cluster, address: &address, credential }.stream().unwrap();
    let installed = with(&install, "hub.example.com:9449", |manifest| manifest.stream().unwrap());
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (joining, installed) = (lines(&joining), lines(&installed));
    let only: Vec<_> = joining.difference(&installed).map(|line| line.trim()).collect();
    assert_eq!(only, ["- --join-token-file=/certs/join-token", "join-token: bW9vcmxpbmUtam9pbi54"]);
    assert_eq!(installed.difference(&joining).count(), 3, "authorities, certificate and key");
}

#[test]
fn a_kustomization_holds_the_same() {
    let install = everything().resolve(VERSION, some()).unwrap();
    let files = with(&install, "192.0.2.1", |manifest| manifest.kustomization().unwrap());
    let listed = Node::parse(&files[0].1).unwrap();
    let names: Vec<_> = files[1..].iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(listed.at("resources"), Some(&names.into()));
    let joined: Vec<_> = files[1..].iter().map(|(_, content)| content.clone()).collect();
    assert_eq!(joined.join("---\n"), with(&install, "192.0.2.1", |manifest| manifest.stream().unwrap()));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = |text: &str| Some(text.to_owned());
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let wrong = Written {
        namespace: text("Tunnels"),
        image: text("a b"),
        image_pull_secrets: texts(&["-"]),
        replicas: Some(3),
        sessions: Some(2),
        proxy: text("http://ann:secret@proxy:3128"),
        proxy_secret: text(""),
        apiserver_cidrs: texts(&["10.0.0.1", "10.0.0.1/33", "fd00::/64"]),
        apiserver_ports: vec![0],
        services: texts(&[
            "store",
            "store=10.0.0.1:9200",
            "Store=:9200",
            "a=:443",
            "b=:9092",
            "c=:70000",
            "d=:1",
            "d=:2000",
        ]),
        http_services: texts(&["=:8080"]),
        node_selector: texts(&["linux", "=x"]),
        tolerations: texts(&["a:Never", "=b"]),
        cpu_request: text("much"),
        memory_request: text("1.5.0Gi"),
        memory_limit: text("Mi"),
    };
    let problems = wrong.resolve(VERSION, everybody()).unwrap_err();
    let mut fields: Vec<_> = problems.iter().map(|problem| problem.field).collect();
    fields.dedup();
    assert_eq!(
        fields,
        [
            "--namespace",
            "--image",
            "--image-pull-secret",
            "--replicas",
            "--kube-apiserver-port",
            "--cpu-request",
            "--memory-request",
            "--memory-limit",
            "--proxy-secret",
            "--proxy",
            "--kube-apiserver-cidr",
            "--service",
            "--http-service",
            "--service",
            "--node-selector",
            "--toleration",
        ]
    );
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(!said.join("\n").contains("secret@"), "{said:?}");
    let alone = Written { proxy_secret: text("proxy"), ..Written::default() };
    assert_eq!(alone.resolve(VERSION, everybody()).unwrap_err().len(), 1);
}

#[test]
fn a_rolling_agent_never_has_more_sessions_than_a_server_takes() {
    for (replicas, sessions, good) in
        [(1, 1, true), (3, 1, true), (1, 2, true), (2, 2, false), (4, 1, false), (0, 1, false)]
    {
        let written = Written { replicas: Some(replicas), sessions: Some(sessions), ..Written::default() };
        assert_eq!(written.resolve(VERSION, everybody()).is_ok(), good, "{replicas} {sessions}");
    }
}

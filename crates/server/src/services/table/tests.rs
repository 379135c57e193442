//! What may be written, what is meant by it, and for whom it is.

use moorline_model::{ClusterUid, Timestamp};
use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"
apiVersion: moorline.io/v1alpha1
kind: ManagementServices
services:
- name: logs
  serverNames: [logs.example.com, Tigera-Linseed.tigera-elasticsearch.svc]
  clusters: [east, west]
  upstream: logs.observability:9200
  mode: PassThrough
- name: metrics
  serverNames: [metrics.example.com]
  clusterSelector: {matchLabels: {tier: production, "example.com/zone": eu-1}}
  upstream: "[2001:db8::1]:443"
  mode: HTTP
  tls: {certificateFile: /etc/tls/tls.crt, privateKeyFile: /etc/tls/tls.key}
  upstreamTLS: {caFile: /etc/ca.crt, serverName: prometheus, certificateFile: /c.crt, privateKeyFile: /c.key}
  maxConnections: 7
- name: open
  clusters: ["*"]
  upstream: 192.0.2.1:80
  mode: HTTP
"#;

fn cluster(name: &str, labels: &[(&str, &str)]) -> ClusterRecord {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let blank = ClusterRecord::new(
        name.parse().unwrap(),
        ClusterUid::from_bytes([0; 16]),
        Timestamp::from_unix_seconds(1_795_233_180),
    );
    ClusterRecord { labels, ..blank }
}

fn one(fields: &str) -> Result<Vec<Service>, String> {
    let text = format!("apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\nservices:\n- {fields}\n");
    parse(&text).map_err(|problems| problems.to_string())
}

#[test]
fn a_whole_table_means_what_it_says() {
    let services = parse(WHOLE).unwrap();
    let [logs, metrics, open] = &services[..] else { panic!("{services:?}") };
    assert_eq!((logs.max_connections, metrics.max_connections), (1000, 7));
    assert_eq!(logs.server_names, ["logs.example.com", "tigera-linseed.tigera-elasticsearch.svc"]);
    assert_eq!(logs.mode, Mode::PassThrough);
    assert_eq!(metrics.upstream.to_string(), "[2001:db8::1]:443");
    assert_eq!((metrics.upstream_name(), open.upstream_name()), ("prometheus", "192.0.2.1"));
    let files = |certificate: &str, key: &str| KeyFiles { certificate: certificate.into(), key: key.into() };
    let upstream = UpstreamTls {
        ca: Some("/etc/ca.crt".into()),
        server_name: Some("prometheus".to_owned()),
        keys: Some(files("/c.crt", "/c.key")),
    };
    let shown = Some(files("/etc/tls/tls.crt", "/etc/tls/tls.key"));
    assert_eq!(metrics.mode, Mode::Http { shown, upstream: Some(upstream) });
    assert_eq!(open.mode, Mode::Http { shown: None, upstream: None });

    let table = Table::new(services);
    let found = |name: &str| table.by_server_name(name).map(|service| service.name.as_str().to_owned());
    for name in ["logs.example.com", "LOGS.example.COM", "tigera-linseed.tigera-elasticsearch.svc"] {
        assert_eq!(found(name).as_deref(), Some("logs"), "{name}");
    }
    for name in
        ["", "logs", "logs.example.com.", "x.logs.example.com", "logs.example.com\0", "*.example.com", "example.com"]
    {
        assert_eq!(found(name), None, "{name:?}");
    }
    assert_eq!(table.by_name(&"open".parse().unwrap()).unwrap().name.as_str(), "open");
    assert!(table.by_name(&"none".parse().unwrap()).is_none());
    assert_eq!(table.len(), 3);
}

#[test]
fn a_service_is_for_whom_it_says_and_labels_are_those_of_now() {
    let table = Table::new(parse(WHOLE).unwrap());
    let has =
        |service: &str, record: &ClusterRecord| table.by_name(&service.parse().unwrap()).unwrap().audience.has(record);
    let labels = [("tier", "production"), ("example.com/zone", "eu-1"), ("more", "")];
    for (record, logs, metrics) in [
        (cluster("east", &[]), true, false),
        (cluster("north", &labels), false, true),
        (cluster("west", &labels[..1]), true, false),
        (cluster("north", &[("tier", "production"), ("example.com/zone", "eu-2")]), false, false),
    ] {
        assert_eq!((has("logs", &record), has("metrics", &record)), (logs, metrics), "{record:?}");
        assert!(has("open", &record));
    }
}

#[test]
fn an_empty_table_is_a_table() {
    for text in ["services: []", "services:", ""] {
        let text = format!("apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\n{text}\n");
        assert_eq!(parse(&text).unwrap(), []);
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = r#"
apiVersion: moorline.io/v1
kind: Services
services:
- name: Logs
  serverNames: ["*.example.com", "192.0.2.1", a.b., 7]
  clusters: [East, management]
  upstream: nowhere
  mode: passthrough
  maxConnections: 0
  colour: red
- name: twice
  serverNames: [same.example.com]
  upstream: a:1
  mode: HTTP
- name: twice
  serverNames: [SAME.example.com]
  clusters: ["*", east]
  clusterSelector: {}
  upstream: a:0
  mode: PassThrough
  tls: {}
- name: labels
  clusterSelector: {matchLabels: {zone: 7, "-x": y}, matchExpressions: []}
  upstream: a:1
  mode: HTTP
  tls: {certificateFile: x}
  upstreamTLS: {privateKeyFile: y, serverName: "a b", skipVerify: true}
- name: nobody
  clusters: []
  upstream: a:1
  mode: HTTP
- name: all
  clusterSelector: {matchLabels: {}}
  upstream: a:1
  mode: HTTP
"#;
    let problems = parse(text).unwrap_err().to_string();
    for part in [
        "file.apiVersion: \"moorline.io/v1\"",
        "file.kind: \"Services\"",
        "services[0].colour: unknown field",
        "services[0].name: \"Logs\"; use 1 to 63 lower-case letters",
        "services[0].serverNames[0]: \"*.example.com\" is no name",
        "services[0].serverNames[1]: \"192.0.2.1\" is no name",
        "services[0].serverNames[2]: \"a.b.\" is no name",
        "services[0].serverNames[3]: 7 is no name",
        "services[0].clusters: \"East\"",
        "services[0].clusters: \"management\"",
        "services[0].upstream: \"nowhere\"; is not HOST:PORT",
        "services[0].mode: \"passthrough\"; write \"PassThrough\" or \"HTTP\"",
        "services[0].maxConnections: 0",
        "services[1].clusters: missing: nothing is for anybody by itself",
        "services[1].tls: missing",
        "services[2].name: \"twice\" stands at file.services[1].name already",
        "services[2].serverNames[0]: \"same.example.com\" stands at file.services[1].serverNames[0] already",
        "services[2].clusterSelector: beside clusters",
        "services[2].upstream: \"a:0\"",
        "services[2].tls: beside mode PassThrough",
        "services[3].clusterSelector.matchExpressions: unknown field",
        "services[3].clusterSelector.matchLabels.zone: 7, not a text",
        "services[3].clusterSelector.matchLabels: no labels of Kubernetes",
        "services[3].tls.privateKeyFile: missing",
        "services[3].upstreamTLS.certificateFile: missing",
        "services[3].upstreamTLS.serverName: \"a b\"",
        "services[3].upstreamTLS.skipVerify: unknown field",
        "services[4].clusters: no cluster",
        "services[5].clusterSelector.matchLabels: no label",
    ] {
        assert!(problems.contains(part), "{part} is missing from:\n{problems}");
    }
    assert!(one("name: a").unwrap_err().contains("upstream: missing"));
}

proptest! {
    /// Whatever is written: an answer, never a panic, and a service only for somebody.
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,400}") {
        drop(parse(&text));
        drop(one(&text));
    }

    /// What a file says of one cluster says nothing of another one.
    #[test]
    fn names_are_exact(named in "[a-z]([a-z0-9-]{0,8}[a-z0-9])?", other in "[a-z]([a-z0-9-]{0,8}[a-z0-9])?") {
        prop_assume!(named != "management" && other != "management");
        let services = one(&format!("{{name: s, clusters: [{named:?}], upstream: 'a:1', mode: HTTP}}")).unwrap();
        prop_assert!(services[0].audience.has(&cluster(&named, &[])));
        prop_assert_eq!(services[0].audience.has(&cluster(&other, &[])), named == other);
    }

    /// A cluster is meant if and only if it has all the labels.
    #[test]
    fn selectors_are_all_of_their_labels(
        wanted in prop::collection::btree_map("[ab]", "[xy]", 1..3),
        there in prop::collection::btree_map("[abc]", "[xyz]", 0..4),
    ) {
        let pairs: Vec<String> = wanted.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
        let selector = format!("{{matchLabels: {{{}}}}}", pairs.join(", "));
        let services = one(&format!("{{name: s, clusterSelector: {selector}, upstream: 'a:1', mode: HTTP}}")).unwrap();
        let pairs: Vec<(&str, &str)> = there.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let all = wanted.iter().all(|(key, value)| there.get(key) == Some(value));
        prop_assert_eq!(services[0].audience.has(&cluster("east", &pairs)), all);
    }

    /// No other name finds a service: no suffix, prefix or look-alike.
    #[test]
    fn server_names_are_exact(name in "[ -~]{0,24}") {
        let table = Table::new(one("{name: s, serverNames: [a.b], clusters: ['*'], upstream: 'a:1', mode: PassThrough}").unwrap());
        prop_assert_eq!(table.by_server_name(&name).is_some(), name.eq_ignore_ascii_case("a.b"));
    }
}

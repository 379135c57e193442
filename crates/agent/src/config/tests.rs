//! Good and bad configurations: what each becomes, and that everything wrong is told at once and without secrets.

use std::{collections::BTreeMap, fs, path::Path};

use moorline_ca::Authority;
use moorline_impersonation::Names;
use moorline_model::ClusterUid;

use super::*;
use crate::tunnel::MAX_SESSIONS;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory with the three files of a cluster, and everything else that a configuration is read from.
struct Bench {
    directory: tempfile::TempDir,
    variables: BTreeMap<&'static str, String>,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let now = now();
        let bench = Self { directory: tempfile::tempdir().unwrap(), variables: BTreeMap::new(), now };
        let authority = Authority::generate("tunnel", now, 10 * DAY).unwrap();
        let uid = ClusterUid::from_bytes([7; 16]);
        let issued = authority.issue_agent(&"prod".parse().unwrap(), &uid, now, 5 * DAY).unwrap();
        bench.write("management-cluster.crt", authority.certificate_pem());
        bench.write("managed-cluster.crt", &issued.certificate_pem);
        bench.write("managed-cluster.key", &issued.key_pem);
        bench
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn raw(&self) -> RawConfig {
        RawConfig {
            management_cluster_addr: Some("hub.example.com".to_owned()),
            cert_dir: Some(self.directory.path().to_owned()),
            kube_apiserver: Some("http://127.0.0.1:8001".to_owned()),
            admin_addr: Some("127.0.0.1:0".to_owned()),
            ..RawConfig::default()
        }
    }

    fn resolve(&self, raw: &RawConfig) -> Result<Config, ConfigError> {
        Config::resolve(
            raw,
            &Surroundings {
                variable: &|name| self.variables.get(name).cloned(),
                service_account: self.directory.path().to_owned(),
                now: self.now,
            },
        )
    }

    fn problems(&self, raw: &RawConfig) -> Vec<Problem> {
        self.resolve(raw).map(|config| panic!("accepted: {config:?}")).unwrap_or_else(|error| error.0)
    }

    /// Resolves with one thing changed and expects exactly one problem, of this field and with these words.
    fn expect(&self, change: impl FnOnce(&mut RawConfig), field: &str, words: &str) {
        let mut raw = self.raw();
        change(&mut raw);
        let problems = self.problems(&raw);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].field.contains(field), "{problems:?}");
        assert!(problems[0].to_string().contains(words), "{problems:?} lacks {words:?}");
    }
}

fn route(config: &Config) -> Arc<tunnel::Route> {
    config.tunnel.routes.borrow().clone().unwrap()
}

#[test]
fn defaults_are_what_the_help_says() {
    let bench = Bench::new();
    let config = bench.resolve(&bench.raw()).unwrap();
    let route = route(&config);
    assert_eq!((route.dialer.host.as_str(), route.dialer.port), ("hub.example.com", 9449));
    assert_eq!(route.dialer.server_name, "moorline-tunnel");
    assert_eq!(config.tunnel.sessions, 1);
    assert_eq!(config.drain_grace, Duration::from_secs(30));
    assert_eq!(config.upstream.response_timeout, Duration::from_secs(120));
    assert_eq!(config.serve.max_requests, 1000);
    assert_eq!(config.serve.narrowing, moorline_impersonation::Narrowing::default());
    assert!(route.dialer.proxy.is_none());
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let admin = RawConfig { admin_addr: None, ..bench.raw() };
    assert_eq!(bench.resolve(&admin).unwrap().admin_addr.to_string(), "0.0.0.0:9092");
}

#[test]
fn names_and_prefixes_are_checked() {
    let bench = Bench::new();
    let acting = ActingFlags {
        map_users: vec!["ann".to_owned(), "=x".to_owned(), "a=".to_owned(), "b=c".to_owned(), "b=d".to_owned()],
        user_prefix: Some(" hub".to_owned()),
        allow_groups: vec![" ".to_owned()],
        ..ActingFlags::default()
    };
    let raw = RawConfig { acting, ..bench.raw() };
    let problems = bench.problems(&raw);
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["--allow-group", "--user-prefix", "--map-user", "--map-user", "--map-user", "--map-user"]);
    let acting = ActingFlags { map_groups: vec!["cn=dev=dev".to_owned()], ..ActingFlags::default() };
    let raw = RawConfig { acting, ..bench.raw() };
    let mapping = bench.resolve(&raw).unwrap().serve.narrowing.mapping;
    assert_eq!(mapping.groups, Names::new(String::new(), [("cn=dev".to_owned(), "dev".to_owned())].into()));
}

#[test]
fn rules_that_do_not_do_what_they_seem_to_are_told() {
    let bench = Bench::new();
    let rules = ["", "a*b", "a**", "*", "ann,bob", "cn=ann,dc=x", "Doe*"].map(str::to_owned);
    let acting = ActingFlags { deny_users: rules.to_vec(), ..ActingFlags::default() };
    let problems = bench.problems(&RawConfig { acting, ..bench.raw() });
    let whats: Vec<&str> = problems.iter().map(|problem| problem.what.split(' ').next().unwrap()).collect();
    assert_eq!(whats, ["holds", "\"a*b\"", "\"a**\"", "\"ann,bob\""]);
    let acting = ActingFlags {
        user_prefix: Some("hub:".to_owned()),
        map_users: vec!["root=local-root".to_owned()],
        deny_users: ["ann", "hub:bob", "h*", "local-root", "x*"].map(str::to_owned).to_vec(),
        allow_groups: vec!["system:authenticated".to_owned(), "dev".to_owned()],
        ..ActingFlags::default()
    };
    let raw = RawConfig { acting, ..bench.raw() };
    let warnings = bench.resolve(&raw).unwrap().warnings;
    let about: Vec<_> = warnings.iter().filter_map(|warning| warning.split(" is about nobody").next()).collect();
    assert_eq!(about[about.len() - 2..], ["--deny-user \"ann\"", "--deny-user \"x*\""], "{warnings:?}");
}

#[test]
fn addresses_of_the_server() {
    let bench = Bench::new();
    for (text, wanted) in [
        ("hub", Some(("hub", 9449))),
        ("hub:443", Some(("hub", 443))),
        ("10.0.0.7:443", Some(("10.0.0.7", 443))),
        ("[fd00::7]", Some(("fd00::7", 9449))),
        ("[fd00::7]:443", Some(("fd00::7", 443))),
        ("https://hub", None),
        ("hub/", None),
        ("user@hub", None),
        ("hub:0", None),
        ("hub:99999", None),
        ("hub:", None),
        ("fd00::7", None),
        ("hub name", None),
    ] {
        let raw = RawConfig { management_cluster_addr: Some(text.to_owned()), ..bench.raw() };
        let address = bench.resolve(&raw).map(|config| route(&config).address.clone());
        let found = address.as_ref().ok().map(|address| (address.host.as_str(), address.port));
        assert_eq!(found, wanted, "{text}");
    }
}

#[test]
fn everything_is_told_at_once() {
    let bench = Bench::new();
    let raw = RawConfig {
        sessions: Some(MAX_SESSIONS + 1),
        cert_dir: Some(bench.path("nowhere")),
        kube_apiserver: Some("http://10.0.0.1".to_owned()),
        kube_response_timeout: Some("soon".to_owned()),
        drain_grace: Some("30".to_owned()),
        admin_addr: Some("localhost:1".to_owned()),
        max_requests: Some(0),
        acting: ActingFlags { deny_groups: vec![String::new()], ..ActingFlags::default() },
        ..RawConfig::default()
    };
    let problems = bench.problems(&raw);
    let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "--management-cluster-addr",
            "--cert-dir",
            "--cert-dir",
            "--sessions",
            "--kube-response-timeout",
            "--kube-apiserver",
            "--max-requests",
            "--deny-group",
            "--admin-addr",
            "--drain-grace"
        ]
    );
    assert!(problems.iter().all(|problem| !problem.what.is_empty() && !problem.remedy.is_empty()));
}

#[test]
fn certificates_that_cannot_work() {
    let bench = Bench::new();
    let stranger = Authority::generate("stranger", bench.now, 10 * DAY).unwrap();
    let foreign = stranger.issue_agent(&"prod".parse().unwrap(), &ClusterUid::from_bytes([8; 16]), bench.now, DAY);
    let foreign = foreign.unwrap();

    bench.write("managed-cluster.key", &foreign.key_pem);
    bench.expect(|_| {}, "--cert-dir", "does not belong to the certificate");
    let mut late = Bench::new();
    late.now = late.now.saturating_add(7 * DAY);
    late.expect(|_| {}, "--cert-dir", "expired 2 days ago");
    let mut early = Bench::new();
    early.now = early.now.saturating_sub(30 * DAY);
    early.expect(|_| {}, "--cert-dir", "is the clock right?");
    let server = Bench::new();
    let issued = stranger.issue_server(&[moorline_ca::SubjectName::Dns("x".to_owned())], server.now, DAY).unwrap();
    server.write("managed-cluster.crt", &issued.certificate_pem);
    server.write("managed-cluster.key", &issued.key_pem);
    server.expect(|_| {}, "--cert-dir", "not made for TLS clients");
    let empty = Bench::new();
    empty.write("management-cluster.crt", "");
    empty.expect(|_| {}, "--cert-dir", "holds no certificate");
    let mixed = Bench::new();
    mixed.write("managed-cluster.crt", &foreign.certificate_pem);
    mixed.write("managed-cluster.key", &foreign.key_pem);
    let warnings = mixed.resolve(&mixed.raw()).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("two installations")), "{warnings:?}");
}

#[test]
fn services_are_offered_where_they_are_written_and_nowhere_else() {
    let bench = Bench::new();
    let config = bench.resolve(&bench.raw()).unwrap();
    assert!(config.services.locals.is_empty() && config.tunnel.service_connections == 0);
    let mut raw = bench.raw();
    raw.services = vec!["store=127.0.0.1:9200".to_owned(), " kibana = [::1]:5601 ".to_owned(), String::new()];
    raw.http_services = vec!["store=:8443".to_owned(), "a=127.0.0.1:0".to_owned(), "b=127.0.0.1:0".to_owned()];
    let config = bench.resolve(&raw).unwrap();
    let told: Vec<_> =
        config.services.locals.iter().map(|local| format!("{} {} {}", local.name, local.kind, local.address)).collect();
    let wanted = ["store tcp 127.0.0.1:9200", "kibana tcp [::1]:5601", "store http 0.0.0.0:8443", "a http 127.0.0.1:0"];
    assert_eq!(told[..4], wanted);
    assert_eq!((config.services.max_connections, config.tunnel.service_connections), (256, 5 * 256));
    for bad in ["store", "store=", "=127.0.0.1:1", "Store=:1", "a.b=:1", "store=hub.example.com:1", "store=:99999"] {
        bench.expect(|raw| raw.services = vec![bad.to_owned()], "--service", "; ");
    }
    for (one, other) in [(":9200", "127.0.0.1:9200"), ("127.0.0.1:9200", "127.0.0.1:9200"), ("[::]:1", "10.0.0.1:1")] {
        bench.expect(
            |raw| {
                raw.services = vec![format!("a={one}")];
                raw.http_services = vec![format!("b={other}")];
            },
            "--http-service",
            "something else of the agent listens there",
        );
    }
    bench.expect(
        |raw| {
            raw.admin_addr = Some(":9092".to_owned());
            raw.services = vec!["a=127.0.0.1:9092".to_owned()];
        },
        "--service",
        "something else of the agent listens there",
    );
    bench.expect(|raw| raw.services = (1..66).map(|port| format!("a=:{port}")).collect(), "--service", "64 at most");
    bench.expect(|raw| raw.max_service_connections = Some(0), "--max-service-connections", "out of range");
}

#[test]
fn the_proxy_comes_from_the_environment() {
    let mut bench = Bench::new();
    bench.variables.insert("https_proxy", "http://user:s3cret@proxy:3128".to_owned());
    let config = bench.resolve(&bench.raw()).unwrap();
    assert_eq!(route(&config).dialer.proxy.as_ref().unwrap().0.to_string(), "http://proxy:3128");
    assert!(!format!("{config:?}").contains("s3cret"));
    bench.variables.insert("NO_PROXY", "example.com".to_owned());
    assert!(route(&bench.resolve(&bench.raw()).unwrap()).dialer.proxy.is_none());
    bench.variables.insert("HTTPS_PROXY", "socks5://user:s3cret@proxy".to_owned());
    let problems = bench.problems(&bench.raw());
    assert!(problems[0].to_string().contains("SOCKS") && !problems[0].to_string().contains("s3cret"), "{problems:?}");
}

#[test]
fn ways_to_the_kube_apiserver() {
    let mut bench = Bench::new();
    let none = |raw: &mut RawConfig| raw.kube_apiserver = None;
    bench.expect(none, "--kubeconfig", "this is no pod");
    bench.expect(|raw| raw.kubeconfig = Some("x".into()), "--kube-apiserver", "keep one");
    bench.expect(|raw| raw.context = Some("x".to_owned()), "--context", "--kubeconfig");
    bench.expect(|raw| raw.kube_token_file = Some("/nowhere".into()), "--kube-token-file", "cannot be read");
    bench.expect(|raw| raw.kube_client_key_file = Some("x".into()), "--kube-client-certificate-file", "missing");
    for (url, words) in [
        ("http://10.0.0.1", "plain HTTP"),
        ("ftp://localhost", "scheme"),
        ("https://host/prefix", "path"),
        ("https://me:s3cret@host", "user name"),
        ("host:6443", "no URL"),
        ("", "no URL"),
    ] {
        bench.expect(|raw| raw.kube_apiserver = Some(url.to_owned()), "--kube-apiserver", words);
    }
    bench.variables.insert("KUBERNETES_SERVICE_HOST", "fd00::1".to_owned());
    bench.variables.insert("KUBERNETES_SERVICE_PORT", "443".to_owned());
    fs::copy(bench.path("management-cluster.crt"), bench.path("ca.crt")).unwrap();
    bench.write("token", "abc");
    let mut raw = bench.raw();
    none(&mut raw);
    let config = bench.resolve(&raw).unwrap();
    assert_eq!(config.upstream.target.to_string(), "https://[fd00::1]:443");
    assert!(matches!(config.token, TokenSource::File(_)));
    raw.kube_ca_file = Some("x".into());
    assert_eq!(bench.problems(&raw)[0].field, "--kube-ca-file");
}

const KUBECONFIG: &str = r"
apiVersion: v1
kind: Config
preferences: {}
current-context: one
contexts:
- name: one
  context: {cluster: c, user: u, namespace: x}
- name: lost
  context: {cluster: gone, user: u}
clusters:
- name: c
  cluster:
    server: https://10.0.0.1:6443
    certificate-authority: management-cluster.crt
    tls-server-name: kubernetes
users:
- name: u
  user:
    token: s3cret-token
";

fn with(bench: &Bench, text: &str) -> RawConfig {
    bench.write("kubeconfig", text);
    RawConfig { kube_apiserver: None, kubeconfig: Some(bench.path("kubeconfig")), ..bench.raw() }
}

#[test]
fn a_kubeconfig_is_read_as_kubectl_does() {
    let bench = Bench::new();
    let config = bench.resolve(&with(&bench, KUBECONFIG)).unwrap();
    assert_eq!(config.upstream.target.to_string(), "https://10.0.0.1:6443");
    assert_eq!(config.upstream.target.tls.as_ref().unwrap().server_name, "kubernetes");
    assert!(matches!(config.token, TokenSource::Fixed(_)));
    assert!(!format!("{config:?}").contains("s3cret"));

    let insecure =
        KUBECONFIG.replace("certificate-authority: management-cluster.crt", "insecure-skip-tls-verify: true");
    let config = bench.resolve(&with(&bench, &insecure)).unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("insecure-skip-tls-verify")));

    let files = KUBECONFIG.replace(
        "token: s3cret-token",
        "{client-certificate: managed-cluster.crt, client-key: managed-cluster.key, tokenFile: token}",
    );
    bench.write("token", "abc");
    let config = bench.resolve(&with(&bench, &files)).unwrap();
    assert!(matches!(config.token, TokenSource::File(_)));

    let encode = |name: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(fs::read(bench.path(name)).unwrap())
    };
    let data = KUBECONFIG
        .replace(
            "certificate-authority: management-cluster.crt",
            &format!("certificate-authority-data: {}", encode("management-cluster.crt")),
        )
        .replace(
            "token: s3cret-token",
            &format!(
                "{{client-certificate-data: {}, client-key-data: {}}}",
                encode("managed-cluster.crt"),
                encode("managed-cluster.key")
            ),
        );
    bench.resolve(&with(&bench, &data)).unwrap();
}

#[test]
fn a_kubeconfig_that_cannot_be_used_says_why() {
    let bench = Bench::new();
    let token = "token: s3cret-token";
    for (change, words) in [
        (KUBECONFIG.replace("current-context: one", "current-context: two"), "no context \"two\""),
        (KUBECONFIG.replace("current-context: one", "current-context: ''"), "no current context"),
        (KUBECONFIG.replace("current-context: one", "current-context: lost"), "names the cluster \"gone\""),
        (KUBECONFIG.replace("- name: u\n", "- name: v\n"), "names the user \"u\""),
        (KUBECONFIG.replace(token, "exec: {command: aws}"), "plugin"),
        (KUBECONFIG.replace(token, "auth-provider: {name: gcp}"), "plugin"),
        (KUBECONFIG.replace(token, "{username: me, password: s3cret}"), "password"),
        (KUBECONFIG.replace(token, "{token: s3cret, as: admin}"), "impersonates"),
        (KUBECONFIG.replace(token, "{client-certificate: managed-cluster.crt}"), "without its key"),
        (KUBECONFIG.replace(token, "{client-certificate-data: '%%', client-key-data: '%%'}"), "base64"),
        (KUBECONFIG.replace("tls-server-name: kubernetes", "tls-server-name: 'a b'"), "neither a DNS name"),
        (KUBECONFIG.replace("tls-server-name: kubernetes", "proxy-url: http://x"), "proxy-url"),
        (KUBECONFIG.replace("management-cluster.crt", "missing.crt"), "missing.crt"),
        ("contexts: s3cret".to_owned(), "is no kubeconfig"),
        ("{".to_owned(), "is no kubeconfig"),
    ] {
        let problems = bench.problems(&with(&bench, &change));
        let shown = ConfigError(problems.clone()).to_string();
        assert_eq!(problems.len(), 1, "{shown}");
        assert!(shown.contains(words), "{shown:?} lacks {words:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    let missing = RawConfig { kubeconfig: Some(Path::new("/nowhere").into()), kube_apiserver: None, ..bench.raw() };
    assert!(bench.problems(&missing)[0].to_string().contains("cannot read /nowhere"));
}

#[test]
fn every_file_that_is_rotated_is_followed() {
    let bench = Bench::new();
    bench.write("token", "t");
    let user = "{client-certificate: managed-cluster.crt, client-key: managed-cluster.key, tokenFile: token}";
    let config = bench.resolve(&with(&bench, &KUBECONFIG.replace("token: s3cret-token", user))).unwrap();
    let count = |config: &Config| {
        let of = |wanted: fn(&Followed) -> bool| config.followed.iter().filter(|files| wanted(files)).count();
        assert_eq!(of(|files| matches!(files, Followed::Identity(_))), 1, "the tunnel's, as one");
        (of(|files| matches!(files, Followed::Keys(_))), of(|files| matches!(files, Followed::Roots(_))))
    };
    assert_eq!(count(&config), (1, 1), "the and the kube-apiserver's: {:?}", config.followed);
    assert!(matches!(config.token, TokenSource::File(_)));

    bench.write("ca.crt", &fs::read_to_string(bench.path("management-cluster.crt")).unwrap());
    let mut bench = bench;
    bench.variables.insert("KUBERNETES_SERVICE_HOST", "10.0.0.1".to_owned());
    bench.variables.insert("KUBERNETES_SERVICE_PORT", "443".to_owned());
    let config = bench.resolve(&RawConfig { kube_apiserver: None, ..bench.raw() }).unwrap();
    assert_eq!(count(&config), (0, 1), "the service account's authority: {:?}", config.followed);
}

/// A refusal is dialled again after minutes; new files after seconds.
#[tokio::test(start_paused = true)]
async fn new_files_shorten_the_wait_for_the_next_dial() {
    let bench = Bench::new();
    let config = bench.resolve(&bench.raw()).unwrap().tunnel;
    let long = Duration::from_secs(300);
    let began = tokio::time::Instant::now();
    let before = config.files();
    config.wait(long, &before).await;
    assert_eq!(began.elapsed(), long);
    let began = tokio::time::Instant::now();
    let rotated = async {
        tokio::time::sleep(long / 10).await;
        let read = |name| fs::read(bench.path(name)).unwrap();
        let pair = KeyPair::from_pem(&read("managed-cluster.crt"), &read("managed-cluster.key")).unwrap();
        config.identity.keys().replace(pair);
    };
    tokio::join!(config.wait(long, &before), rotated);
    assert!(began.elapsed() < long / 5, "{:?}", began.elapsed());
}

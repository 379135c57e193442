//! A real Dex, a real kube-apiserver behind Moorline, and real kubectl that gets its tokens from `moorline credential`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use http::{HeaderValue, Method, StatusCode, header};
use moorline_testkit::{
    client::{Client, full},
    eventually,
    house::{Agent, Server},
    kubernetes::{ControlPlane, Dex, DexOptions, Kubectl, Options, Person, Tools},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{ChildStderr, Command},
};

use crate::DEADLINE;

const ANN: Person =
    Person { id: "ann", email: "ann@example.com", password: "anns-password-9c21", groups: &["developers"] };

const POLICY: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all}
rules: [{apiGroups: [moorline.io], resources: [managedclusters], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: all}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: admin}
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "oidc:developers"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: all}
"#;

/// A token of Dex counts ten seconds less for `moorline credential`.
const LIFE: Duration = Duration::from_secs(20);

struct Rig {
    tools: Tools,
    dex: Dex,
    server: Server,
    _agent: Agent,
    _plane: ControlPlane,
    home: tempfile::TempDir,
}

impl Rig {
    async fn build() -> Option<Self> {
        let tools = Tools::require_or_skip()?;
        let plane = ControlPlane::start(&tools, Options { name: "login".into(), ..Options::default() }).await.unwrap();
        let dex = Dex::start(&tools, &[ANN], DexOptions { id_tokens: LIFE, ..DexOptions::default() }).await.unwrap();
        let (home, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ca_file = home.path().join("dex.crt");
        fs::write(&ca_file, dex.authority_pem()).unwrap();
        moorline_process::write_private(&state.path().join("tokens.csv"), b"admins-token,admin,1\n").unwrap();
        moorline_process::write_private(&state.path().join("policy.yaml"), POLICY.as_bytes()).unwrap();
        let text = |text: &str| Some(text.to_owned());
        let server = Server::start_in(state, |raw| {
            raw.oidc.oidc_issuer_url = Some(dex.issuer());
            raw.oidc.oidc_client_id = text("moorline");
            raw.oidc.oidc_ca_file = Some(ca_file);
            raw.oidc.oidc_username_claim = text("email");
            raw.oidc.oidc_username_prefix = text("oidc:");
            raw.oidc.oidc_groups_claim = text("groups");
            raw.oidc.oidc_groups_prefix = text("oidc:");
        });
        let server = server.await.unwrap();
        plane.grant_everything("oidc:ann@example.com").await.unwrap();
        let token = plane.create_agent_service_account("moorline", "agent").await.unwrap();
        let file = |name: &str, text: &str| {
            let path = home.path().join(name);
            moorline_process::write_private(&path, text.as_bytes()).unwrap();
            Some(path)
        };
        let (token_file, ca_file) = (file("agent-token", &token), file("kube-ca.crt", &plane.ca_pem()));
        let agent = Agent::start(&server.create("west").await.unwrap(), server.tunnel, &plane.url(), |raw| {
            raw.kube_token_file = token_file;
            raw.kube_ca_file = ca_file;
        });
        server.connected("west").await.unwrap();
        Some(Self { tools, dex, server, _agent: agent.unwrap(), _plane: plane, home })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn login(&self, more: &[&str]) -> Command {
        let mut login = Command::new(env!("CARGO_BIN_EXE_moorline"));
        login.args(["login", "--client-id", "moorline", "--issuer-url", &self.dex.issuer()]);
        login.arg("--issuer-certificate-authority").arg(self.path("dex.crt"));
        login.args(["--cluster", "west", "--server", &format!("https://{}", self.server.gateway)]);
        login.arg("--certificate-authority").arg(self.server.directory().join("gateway-ca.crt"));
        login.arg("--kubeconfig").arg(self.path("kubeconfig")).args(more);
        login.env_clear().env("HOME", self.home.path()).kill_on_drop(true);
        login.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        login
    }

    async fn kubectl(&self, version: Kubectl, arguments: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_moorline")).parent().unwrap();
        let mut kubectl = Command::from(self.tools.kubectl(version, &self.path("kubeconfig")));
        kubectl.args(["--context", "moorline-west"]).args(arguments).env("PATH", program).kill_on_drop(true);
        tokio::time::timeout(DEADLINE, kubectl.output()).await.unwrap().unwrap()
    }

    /// The one file of kept tokens.
    fn kept(&self) -> Value {
        let entries = fs::read_dir(self.path(".cache/moorline/tokens")).unwrap();
        let mut files =
            entries.map(|it| it.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
        let kept = serde_json::from_slice(&fs::read(files.next().unwrap()).unwrap()).unwrap();
        assert_eq!(files.next(), None);
        kept
    }
}

/// Somebody with a browser that has no pictures.
struct Browser {
    http: Client,
    /// Where Dex's pages are.
    base: String,
}

impl Browser {
    fn new(dex: &Dex) -> Self {
        let issuer = dex.issuer();
        Self { http: dex.client().unwrap(), base: issuer.strip_suffix("/dex").unwrap().to_owned() }
    }

    /// Goes where it is sent: to a page of Dex (none) or to another place.
    async fn go(&self, method: Method, target: &str, form: String) -> (String, Option<String>) {
        let mut target = target.strip_prefix(&self.base).unwrap_or(target).to_owned();
        let (mut method, mut form) = (method, form);
        loop {
            let mut request = self.http.request_with(method, &target, full(form));
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
            let answer = self.http.ask(request).await.unwrap();
            if !answer.code.is_redirection() {
                assert_eq!(answer.code, StatusCode::OK, "{target}: {}", answer.body);
                return (target, None);
            }
            let next = answer.headers[header::LOCATION].to_str().unwrap();
            if next.starts_with("http://localhost:") {
                return (target, Some(next.to_owned()));
            }
            target = next.strip_prefix(&self.base).unwrap_or(next).to_owned();
            (method, form) = (Method::GET, String::new());
        }
    }

    /// Shows who one is, on the page to which `target` leads.
    async fn log_in(&self, method: Method, target: &str, form: String) -> Option<String> {
        let (page, elsewhere) = self.go(method, target, form).await;
        assert_eq!(elsewhere, None, "a page that asks for a password");
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("login", ANN.email), ("password", ANN.password)])
            .finish();
        self.go(Method::POST, &page, form).await.1
    }
}

/// The first address on a line of its own.
async fn address(stderr: &mut BufReader<ChildStderr>, said: &mut String) -> String {
    loop {
        let mut line = String::new();
        let read = tokio::time::timeout(DEADLINE, stderr.read_line(&mut line)).await.unwrap();
        assert_ne!(read.unwrap(), 0, "it ended: {said}");
        said.push_str(&line);
        if line.trim().starts_with("https://") {
            return line.trim().to_owned();
        }
    }
}

async fn fetch(url: &str) {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut socket = TcpStream::connect(authority.replace("localhost", "127.0.0.1")).await.unwrap();
    let head = format!("GET /{path} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_goes_on_past_the_end_of_a_token() {
    let Some(rig) = Rig::build().await else { return };
    let browser = Browser::new(&rig.dex);
    let mut login = rig.login(&[]).spawn().unwrap();
    let mut stderr = BufReader::new(login.stderr.take().unwrap());
    let mut said = String::new();
    let page = address(&mut stderr, &mut said).await;
    let back = browser.log_in(Method::GET, &page, String::new()).await.unwrap();
    fetch(&back).await;
    let ended = tokio::time::timeout(DEADLINE, login.wait_with_output()).await.unwrap().unwrap();
    stderr.read_to_string(&mut said).await.unwrap();
    assert!(ended.status.success(), "{said}");
    let first = rig.kept();
    for kept in ["id_token", "refresh_token"] {
        assert!(!said.contains(first[kept].as_str().unwrap()), "{kept} in {said}");
    }
    let kubeconfig = fs::read_to_string(rig.path("kubeconfig")).unwrap();
    assert!(!kubeconfig.contains(first["id_token"].as_str().unwrap()), "{kubeconfig}");

    let who = rig.kubectl(Kubectl::New, &["auth", "whoami", "-o", "json"]).await;
    assert!(who.status.success(), "{who:?}");
    let who: Value = serde_json::from_slice(&who.stdout).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "oidc:ann@example.com");

    // Again and again until the token has been replaced twice, by kubectls of two ages in turn; none of them fails.
    let mut tokens = vec![first["id_token"].clone()];
    let mut versions = [Kubectl::Old, Kubectl::New].into_iter().cycle();
    while tokens.len() < 3 {
        let version = versions.next().unwrap();
        let replaced = eventually(DEADLINE, async || {
            let ended = rig.kubectl(version, &["get", "namespaces", "-o", "name"]).await;
            assert!(ended.status.success(), "{version}: {ended:?}");
            let token = rig.kept()["id_token"].clone();
            (tokens.last() != Some(&token)).then_some(token)
        });
        let token = replaced.await.unwrap();
        tokens.push(token);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_typed_into_another_machine() {
    let Some(rig) = Rig::build().await else { return };
    let browser = Browser::new(&rig.dex);
    let mut login = rig.login(&["--grant", "device-code"]).spawn().unwrap();
    let mut stderr = BufReader::new(login.stderr.take().unwrap());
    let mut said = String::new();
    address(&mut stderr, &mut said).await;
    let code = said.split("type the code ").nth(1).unwrap().split(' ').next().unwrap();
    let form = form_urlencoded::Serializer::new(String::new()).append_pair("user_code", code).finish();
    let back = browser.log_in(Method::POST, "/dex/device/auth/verify_code", form).await;
    assert_eq!(back, None, "it ends on a page of the issuer");
    let ended = tokio::time::timeout(DEADLINE, login.wait_with_output()).await.unwrap().unwrap();
    stderr.read_to_string(&mut said).await.unwrap();
    assert!(ended.status.success(), "{said}");
    let ended = rig.kubectl(Kubectl::New, &["get", "namespaces", "-o", "name"]).await;
    assert!(ended.status.success(), "{ended:?}");
}

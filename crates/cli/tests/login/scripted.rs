//! Both ways to log in, and kubectl's plugin, against an issuer that answers by script.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Output},
};

use serde_json::{Value, json};

use crate::issuer::{Form, Issuer};

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A login that waits for a browser, and the page that it shows.
struct Waiting {
    program: Child,
    stderr: BufReader<std::process::ChildStderr>,
    page: Form,
}

impl Waiting {
    fn start(issuer: &Issuer, more: &[&str]) -> Self {
        let mut program = issuer.moorline("login", more).spawn().unwrap();
        let mut stderr = BufReader::new(program.stderr.take().unwrap());
        let page = loop {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended without a page");
            if let Some(query) = line.trim().strip_prefix(&format!("{}/auth?tenant=1&", issuer.url)) {
                break form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            }
        };
        Self { program, stderr, page }
    }

    /// What a browser does at the end: the first line of what it is answered.
    fn visit(&self, query: &str) -> String {
        let target = self.page["redirect_uri"].strip_prefix("http://localhost:").unwrap();
        let (port, path) = target.split_once('/').unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
        write!(socket, "GET /{path}?{query} HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    }

    fn end(mut self) -> Output {
        let mut rest = Vec::new();
        self.stderr.read_to_end(&mut rest).unwrap();
        let output = self.program.wait_with_output().unwrap();
        Output { stderr: rest, ..output }
    }
}

#[test]
fn a_browser_brings_the_code_and_kubectl_gets_a_plugin() {
    let issuer = Issuer::start();
    let kubeconfig = issuer.path("kubeconfig");
    let login = Waiting::start(&issuer, &["--cluster", "west", "--kubeconfig", kubeconfig.to_str().unwrap()]);
    let page = login.page.clone();
    let field = |name: &str| page[name].as_str();
    assert_eq!((field("response_type"), field("client_id"), field("code_challenge_method")), ("code", "us", "S256"));
    assert_eq!(field("scope"), "openid groups offline_access", "what the issuer says to have");
    let grant = (page["code_challenge"].clone(), page["nonce"].clone());
    issuer.script.lock().unwrap().codes.insert("c0de".to_owned(), grant);

    // A stranger who guesses changes nothing.
    assert_eq!(login.visit("code=c0de&state=guess"), "HTTP/1.1 400 Bad Request");
    assert_eq!(login.visit("error=access_denied"), "HTTP/1.1 400 Bad Request");
    assert_eq!(login.visit(&format!("code=c0de&state={}", field("state"))), "HTTP/1.1 200 OK");
    let ended = login.end();
    assert!(ended.status.success(), "{}", err(&ended));
    issuer.check("login", &ended);

    let config: Value = serde_saphyr::from_str(&fs::read_to_string(&kubeconfig).unwrap()).unwrap();
    assert_eq!(config["contexts"][0]["name"], "moorline-west");
    assert_eq!(config["clusters"][0]["cluster"]["server"], format!("{}/clusters/west", issuer.url));
    let exec = &config["users"][0]["user"]["exec"];
    assert_eq!(exec["apiVersion"], "client.authentication.k8s.io/v1");
    let arguments: Vec<_> = exec["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect();
    let ca = format!("--issuer-certificate-authority={}", issuer.path("ca.crt").display());
    assert_eq!(arguments, ["credential", &format!("--issuer-url={}", issuer.url), "--client-id=us", &ca]);

    let [kept] = &issuer.kept()[..] else { panic!("one file") };
    assert_eq!(fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o600);
    let printed = issuer.run("credential", &[]);
    let credential: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(credential["kind"], "ExecCredential");
    assert_eq!(credential["status"]["token"], json!(issuer.script.lock().unwrap().token));
    assert!(credential["status"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(issuer.script.lock().unwrap().refreshes, 0);
}

#[test]
fn what_is_not_the_answer_to_this_login_is_refused() {
    let issuer = Issuer::start();
    let login = Waiting::start(&issuer, &[]);
    let replayed = (login.page["code_challenge"].clone(), "of-another-login".to_owned());
    issuer.script.lock().unwrap().codes.insert("c0de".to_owned(), replayed);
    login.visit(&format!("code=c0de&state={}", login.page["state"]));
    let ended = login.end();
    assert_eq!(ended.status.code(), Some(1));
    assert!(err(&ended).contains("answer to another login"), "{}", err(&ended));
    assert!(issuer.kept().is_empty());

    let login = Waiting::start(&issuer, &[]);
    login.visit(&format!("error=access_denied&error_description=not+today&state={}", login.page["state"]));
    let ended = login.end();
    assert!(err(&ended).contains("the issuer refuses: access_denied: not today"), "{}", err(&ended));
}

#[test]
fn a_device_waits_and_says_how_it_ended() {
    let issuer = Issuer::start();
    let device = |before: &[&'static str]| {
        issuer.script.lock().unwrap().before_device = before.iter().copied().collect();
        issuer.run("login", &["--grant", "device-code"])
    };
    let ended = device(&["authorization_pending", "authorization_pending", "slow_down"]);
    assert!(ended.status.success(), "{}", err(&ended));
    assert!(err(&ended).contains("type the code ABCD-EFGH") && err(&ended).contains(&format!("{}/type", issuer.url)));
    for (error, said) in [
        ("access_denied", "the login was denied"),
        ("expired_token", "nobody logged in before the code expired"),
        ("invalid_client", "the issuer refuses: invalid_client: so it is"),
    ] {
        let ended = device(&["authorization_pending", error]);
        assert_eq!(ended.status.code(), Some(1));
        assert!(err(&ended).contains(said), "{}", err(&ended));
    }
}

#[test]
fn many_kubectls_use_a_refresh_token_once() {
    let issuer = Issuer::start();
    // It counts no more as soon as it is there.
    issuer.script.lock().unwrap().life = 5;
    assert!(issuer.run("login", &["--grant", "device-code"]).status.success());
    issuer.script.lock().unwrap().life = 600;
    let programs: Vec<_> = (0..8).map(|_| issuer.moorline("credential", &[]).spawn().unwrap()).collect();
    for program in programs {
        let output = program.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", err(&output));
        let credential: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(credential["status"]["token"], json!(issuer.script.lock().unwrap().token));
        issuer.check("credential", &output);
    }
    assert_eq!(issuer.script.lock().unwrap().refreshes, 1);
    let [kept] = &issuer.kept()[..] else { panic!("one file") };
    assert!(fs::read_to_string(kept).unwrap().contains("refresh-2"), "the new refresh token is kept");
}

#[test]
fn who_is_not_logged_in_is_told_how() {
    let issuer = Issuer::start();
    let hint = format!("log in: moorline login --issuer-url={} --client-id=us", issuer.url);
    let ended = issuer.run("credential", &[]);
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0));
    assert!(err(&ended).contains("you are not logged in") && err(&ended).contains(&hint), "{}", err(&ended));

    issuer.script.lock().unwrap().life = 5;
    assert!(issuer.run("login", &["--grant", "device-code"]).status.success());
    issuer.script.lock().unwrap().refresh = None;
    let ended = issuer.run("credential", &[]);
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0));
    assert!(err(&ended).contains("ended your login (invalid_grant)") && err(&ended).contains(&hint), "{}", err(&ended));
}

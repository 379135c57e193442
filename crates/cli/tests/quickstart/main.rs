//! The whole house in one command: the program is started, talked to through its gateway as kubectl does, stopped by
//! Ctrl-C, and started again.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod kubectl;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use self::kubectl::Kubectl;

/// Nothing takes longer than this unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

struct Quickstart {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Quickstart {
    /// Starts it on free ports, and waits until it says that it is ready.
    fn start(home: &Path, state: &Path, kubeconfig: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
        command.arg("quickstart").arg("--state-dir").arg(state).arg("--write-kubeconfig").arg(kubeconfig);
        for door in ["--gateway-listen", "--tunnel-listen", "--admin-listen"] {
            command.args([door, "127.0.0.1:0"]);
        }
        command.env_clear().env("HOME", home).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut quickstart = Self { child, lines, said: String::new() };
        quickstart.wait_for("Ctrl-C stops everything");
        quickstart
    }

    fn wait_for(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.contains(wanted) {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.extend([line.as_str(), "\n"]),
                Err(_over) => {
                    let complained = self.kill();
                    panic!("never said {wanted:?}, but:\n{}{complained}", self.said);
                }
            }
        }
    }

    /// Ctrl-C; gives back the exit code.
    fn interrupt(mut self) -> i32 {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let deadline = Instant::now() + PATIENCE;
        // Standard output ends with the process; what it says meanwhile is of no interest.
        while self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < deadline, "it did not end");
        self.child.wait().unwrap().code().expect("it ended by itself, not by the signal")
    }

    fn kill(&mut self) -> String {
        drop(self.child.kill());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn moorline(home: &Path, state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
    command.args(args).arg("--state-dir").arg(state).env_clear().env("HOME", home).output().unwrap()
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn one_command_gives_a_cluster_that_kubectl_can_use_and_the_next_start_finds_it_again() {
    let home = tempfile::tempdir().unwrap();
    let (state, config) = (home.path().join("state"), home.path().join("kube").join("config"));
    fs::create_dir(config.parent().unwrap()).unwrap();
    fs::write(&config, "kind: Config\ncurrent-context: mine\ncontexts:\n- name: mine\n  context: {x: 1}\n").unwrap();

    let quickstart = Quickstart::start(home.path(), &state, &config);
    assert!(quickstart.said.contains(&format!("export KUBECONFIG={}", config.display())), "{}", quickstart.said);
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("current-context: mine") && text.contains("x: 1"), "{text}");
    talk(&Kubectl::from_kubeconfig(&text, "moorline-demo"));
    let uid = manage(home.path(), &state);
    invite(home.path(), &state);
    assert_eq!(quickstart.interrupt(), 0);

    let again = Quickstart::start(home.path(), &state, &config);
    let list: Value =
        serde_json::from_str(&ok(&moorline(home.path(), &state, &["cluster", "list", "-o", "json"]))).unwrap();
    assert_eq!(list["items"][0]["metadata"]["uid"], uid, "the same cluster");
    let renewed = fs::read_to_string(&config).unwrap();
    let (before, after) =
        (Kubectl::from_kubeconfig(&text, "moorline-demo"), Kubectl::from_kubeconfig(&renewed, "moorline-demo"));
    assert!(before.same_credentials(&after), "the same authority and the same user");
    assert_eq!(whoami(&after), whoami(&after));
    assert_eq!(again.interrupt(), 0);
}

/// A colleague gets a token, uses it, and loses it.
fn invite(home: &Path, state: &Path) {
    let run = |args: &[&str]| moorline(home, state, args);
    let file = home.join("ann.kubeconfig");
    let ann = "ann@example.com";
    let to_file = ["--write-kubeconfig", file.to_str().unwrap(), "--cluster", "demo"];
    ok(&run(&[&["user", "add", ann, "--group", "moorline:admins"], &to_file[..]].concat()));
    let kubectl = Kubectl::from_kubeconfig(&fs::read_to_string(&file).unwrap(), "moorline-demo");
    assert_eq!(whoami(&kubectl), ann);
    let may = ["auth", "can-i", "delete", "users", "admin", "--as", ann, "--as-group", "moorline:admins"];
    assert_eq!(ok(&run(&may)), "yes\n");
    let token = ok(&run(&["user", "add", "bob"]));
    assert_eq!(kubectl.with_token(token.trim()).get("/version").0, 403, "nothing is bound to bob");
    let list = ok(&run(&["user", "list"]));
    assert_eq!(
        list.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(),
        ["NAME", "admin", ann, "bob"]
    );
    assert!(ok(&run(&["user", "revoke", ann, "bob"])).contains("user \"ann@example.com\" revoked"));
    assert_eq!(kubectl.get("/version").0, 401);
}

fn whoami(kubectl: &Kubectl) -> String {
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let (status, answer) = kubectl.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review);
    assert_eq!(status, 201, "{answer}");
    answer["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
}

/// What a user does with kubectl.
fn talk(kubectl: &Kubectl) {
    assert!(!whoami(kubectl).is_empty());
    let (status, version) = kubectl.get("/version");
    assert_eq!((status, version["gitVersion"].as_str().unwrap()), (200, moorline_demo::VERSION));
    let (_, pods) = kubectl.get("/api/v1/namespaces/default/pods");
    let names: Vec<_> = pods["items"].as_array().unwrap().iter().map(|pod| &pod["metadata"]["name"]).collect();
    assert!(names.contains(&&json!("ticker")), "{names:?}");

    let version = pods["metadata"]["resourceVersion"].as_str().unwrap();
    let event = kubectl.first_line(&format!("/api/v1/pods?watch=true&resourceVersion={version}"));
    let event: Value = serde_json::from_str(&event).unwrap();
    assert!(["ADDED", "MODIFIED", "DELETED"].contains(&event["type"].as_str().unwrap()), "{event}");

    let line = kubectl.first_line("/api/v1/namespaces/default/pods/ticker/log?follow=true&tailLines=1");
    assert!(line.starts_with("tick ") && line.contains("demo"), "{line}");

    let exec = "/api/v1/namespaces/default/pods/ticker/exec?stdout=true&command=echo&command=hello";
    assert_eq!(kubectl.exec(exec, b""), b"hello\n");
    let cat = "/api/v1/namespaces/default/pods/ticker/exec?stdin=true&stdout=true&command=cat";
    assert_eq!(kubectl.exec(cat, b"through the tunnel and back"), b"through the tunnel and back");

    let (status, refused) = kubectl.get("/api/v1/secrets");
    assert_eq!((status, &refused["kind"]), (404, &json!("Status")));
    assert_eq!(kubectl.without_credentials().get("/version").0, 401);
}

/// What an administrator does with the other commands. Gives back the uid of the cluster.
fn manage(home: &Path, state: &Path) -> Value {
    let run = |args: &[&str]| moorline(home, state, args);
    let table = ok(&run(&["status"]));
    let mut rows = table.lines();
    assert!(rows.next().unwrap().starts_with("NAME   CONNECTED   SINCE"), "{table}");
    assert!(rows.next().unwrap().starts_with("demo   True        "), "{table}");
    let described = ok(&run(&["cluster", "describe", "demo"]));
    for part in ["Name:         demo\n", "ManagedClusterConnected ", " Registered ", " Connected "] {
        assert!(described.contains(part), "{part} in {described}");
    }
    let examined = ok(&run(&["doctor"]));
    assert!(examined.contains("OK       tunnel-tls ") && !examined.contains("WARN"), "{examined}");
    assert!(run(&["status", "--check"]).status.success());

    let files = state.join("west");
    let added = run(&["cluster", "add", "west", "-l", "a=b", "--output-dir", files.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&added.stderr).contains("managedcluster \"west\" created"));
    assert!(ok(&added).contains("written to"));
    assert!(fs::read_to_string(files.join("managed-cluster.key")).unwrap().contains("PRIVATE KEY"));
    let again = run(&["cluster", "add", "west"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).starts_with("Error from server (AlreadyExists): "));
    assert_eq!(ok(&run(&["cluster", "get", "west", "-o", "name"])), "managedcluster.moorline.io/west\n");
    assert!(ok(&run(&["kubeconfig", "west", "--stdout"])).contains("current-context: moorline-west"));
    assert_eq!(ok(&run(&["cluster", "delete", "west"])), "managedcluster \"west\" deleted\n");
    let gone = run(&["cluster", "delete", "west"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).starts_with("Error from server (NotFound): "));

    let list: Value = serde_json::from_str(&ok(&run(&["cluster", "list", "-o", "json"]))).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert!(ok(&run(&["version"])).contains("Server Version: v"));
    list["items"][0]["metadata"]["uid"].clone()
}

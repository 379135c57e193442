//! Joining as it is typed: no secret in a list of processes or in a log, and whoever is killed on the way, agent or
//! server, is joined by the same token when the same is typed again.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use http::{Method, StatusCode};
use moorline_api::{CreatedJoinToken, paths};
use moorline_testkit::{client::full, eventually, upstream::Upstream};

use super::{
    house::Server,
    program::{Program, moorline},
};

/// How often an agent is killed while it joins.
const KILLS: u32 = 20;

/// Until an ordinary join has ended, also on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

async fn invite(server: &Server, name: &str, file: &Path) -> String {
    let user = server.user();
    let body = full(format!("{{\"name\":{name:?},\"join\":{{}}}}"));
    let answer = user.ask(user.request_with(Method::POST, paths::CLUSTERS, body)).await.unwrap();
    assert_eq!(answer.code, StatusCode::CREATED, "{}", answer.body);
    let created: CreatedJoinToken = serde_json::from_str(&answer.body).unwrap();
    let token = created.token.expose().to_owned();
    moorline_process::write_private(file, token.as_bytes()).unwrap();
    token
}

fn join(token: &Path, certs: &Path) -> Command {
    moorline(&["agent", "join", "--token-file", &text(token), "--cert-dir", &text(certs)])
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Kills a program after a while, as an accident would.
async fn kill_after(mut program: Program, wait: Duration) {
    tokio::time::sleep(wait).await;
    if program.is_running() {
        program.signal("KILL");
    }
    let _code_or_signal = program.ended(WITHIN).await;
}

async fn joined(command: Command) {
    let mut program = Program::start(command);
    let code = program.ended(WITHIN).await;
    // The one before may have been killed after its last step.
    let said = program.said(&[]).join("\n");
    assert!(code == Some(0) || said.contains("holds the certificate of an agent already"), "{code:?}\n{said}");
}

#[tokio::test]
async fn whoever_is_killed_while_joining_joins_with_the_same_token() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    for kill in 0..KILLS {
        let name = format!("c{kill}");
        let (token, certs) = (dir.path().join(format!("{name}.token")), dir.path().join(&name));
        invite(&server, &name, &token).await;
        let wait = Duration::from_millis(u64::from(kill) * 5);
        kill_after(Program::start(join(&token, &certs)), wait).await;
        joined(join(&token, &certs)).await;
        let cluster = server.cluster(&name).await;
        assert_eq!(cluster.status.fingerprints.len(), 1, "{name}: one certificate, whatever happened");
        let kept = std::fs::read(certs.join("managed-cluster.crt")).unwrap();
        let kept = moorline_pki::certificates_from_pem(&kept).unwrap();
        assert_eq!(cluster.status.fingerprints[0], moorline_pki::fingerprint(&kept[0]), "{name}");
    }
}

#[tokio::test]
async fn an_agent_that_joins_at_its_start_shows_no_secret() {
    let (server, upstream) = (Server::start().await, Upstream::start().await.unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (file, certs): (PathBuf, PathBuf) = (dir.path().join("token"), dir.path().join("certs"));
    let token = invite(&server, "east", &file).await;
    moorline_process::write_private(&dir.path().join("api-token"), b"the-agent's-own-token").unwrap();
    let flags = [
        "agent".to_owned(),
        "--join-token-file".to_owned(),
        text(&file),
        "--cert-dir".to_owned(),
        text(&certs),
        "--kube-apiserver".to_owned(),
        upstream.url(),
        "--kube-token-file".to_owned(),
        text(&dir.path().join("api-token")),
        "--admin-addr".to_owned(),
        "127.0.0.1:0".to_owned(),
        "--log".to_owned(),
        "trace".to_owned(),
    ];
    let agent = Program::start(moorline(&flags));
    server.connected("east").await;
    let secret = &token["moorline-join.".len()..];
    for id in [agent.id(), server.program.id()] {
        for file in ["cmdline", "environ"] {
            let shown = std::fs::read(format!("/proc/{id}/{file}")).unwrap();
            assert!(!String::from_utf8_lossy(&shown).contains(secret), "{file}");
        }
    }
    assert!(agent.said(&[secret]).is_empty() && server.program.said(&[secret]).is_empty());
    let there = eventually(WITHIN, async || agent.said(&["joined", "east"]).pop()).await;
    assert!(there.is_ok(), "{:?}", agent.said(&[]));
}

#[tokio::test]
async fn a_token_is_made_shown_once_and_listed_without_its_secret() {
    let server = Server::start().await;
    let state = text(server.directory.path());
    let gateway = format!("https://{}", server.gateway);
    let run = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--state-dir", &state, "--server", &gateway]).collect();
        let output = moorline(&all).stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{arguments:?}: {err}");
        (out, err)
    };
    let (token, told) = run(&["cluster", "add", "west", "--join", "--ttl", "30m"]);
    assert!(token.starts_with("moorline-join.") && token.lines().count() == 1, "{token}");
    assert!(told.contains("moorline-agent join --token-file") && !told.contains(token.trim()), "{told}");
    let (another, _) = run(&["token", "create", "west", "-o", "json"]);
    let another: CreatedJoinToken = serde_json::from_str(&another).unwrap();
    let (list, _) = run(&["token", "list"]);
    assert!(list.contains("Valid") && list.contains(&another.join_token.metadata.name), "{list}");
    let (whole, _) = run(&["token", "list", "-o", "yaml"]);
    assert!(!whole.contains("moorline-join.") && !whole.contains("hash"), "{whole}");
    let (revoked, _) = run(&["token", "revoke", &another.join_token.metadata.name]);
    assert!(revoked.contains("revoked"), "{revoked}");
    let (list, _) = run(&["token", "list", "-o", "name"]);
    assert_eq!(list.lines().count(), 1, "{list}");
}

//! The program as it is typed: help, faults in flags and what they name, exit codes. No gateway is needed for these.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use moorline_model::Timestamp;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs the program with an empty environment and `home` as home directory.
fn moorline(home: &Path, args: &[&str]) -> Ran {
    let output =
        Command::new(env!("CARGO_BIN_EXE_moorline")).args(args).env_clear().env("HOME", home).output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn every_command_has_help_with_examples() {
    let home = tempfile::tempdir().unwrap();
    for command in [
        "",
        "quickstart",
        "server",
        "agent",
        "agent rbac",
        "store",
        "store export",
        "store import",
        "user",
        "user add",
        "user list",
        "user revoke",
        "cluster",
        "cluster add",
        "cluster manifest",
        "cluster list",
        "cluster get",
        "cluster delete",
        "auth",
        "auth can-i",
        "kubeconfig",
        "status",
        "completion",
        "version",
    ] {
        let args: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let ran = moorline(home.path(), &args);
        assert_eq!(ran.code, 0, "{command}: {}", ran.err);
        assert!(ran.out.contains("Examples:\n  ") && ran.out.contains("Usage: moorline"), "{command}: {}", ran.out);
    }
}

#[test]
fn faults_in_flags_end_with_two_and_say_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    for (args, told) in [
        (vec![], "Usage: moorline"),
        (vec!["cluster"], "Usage: moorline cluster"),
        (vec!["frobnicate"], "unrecognized subcommand"),
        (vec!["status", "-o", "xml"], "possible values: json, yaml, wide, name"),
        (vec!["kubeconfig", "x", "--stdout", "--set-current"], "cannot be used with"),
        (vec!["quickstart", "--context", "x"], "--kubeconfig"),
        (vec!["quickstart", "--gateway-listen", "nonsense", "--tunnel-listen", ":0"], "--tunnel-listen"),
        (vec!["status"], "--state-dir"),
        (vec!["status", "--state-dir", "/nowhere"], "not the state directory of a gateway"),
    ] {
        let ran = moorline(home.path(), &args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(told), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }
}

#[test]
fn all_problems_are_told_together_and_no_secret_is() {
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    fs::write(&token, "hunter2 hunter3").unwrap();
    let ran = moorline(
        home.path(),
        &[
            "cluster",
            "add",
            "Bad_Name",
            "--label",
            "nothing",
            "--replicas",
            "9",
            "--map-user",
            "ann",
            "--server",
            "http://gw",
            "--certificate-authority",
            "/nowhere/ca.crt",
            "--token-file",
            token.to_str().unwrap(),
        ],
    );
    assert_eq!(ran.code, 2);
    for told in [
        "Bad_Name",
        "--map-user: \"ann\"",
        "--label: \"nothing\"",
        "--server: \"http://gw\"",
        "/nowhere/ca.crt",
        "--token-file: ",
    ] {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
    assert!(!ran.err.contains("hunter"), "{}", ran.err);
}

#[test]
fn a_gateway_that_is_not_there_ends_with_one() {
    let home = tempfile::tempdir().unwrap();
    let ca = authority(home.path());
    let closed = moorline_testkit::Refusing::bind().unwrap();
    let token = home.path().join("token");
    fs::write(&token, "secret").unwrap();
    let server = format!("https://{}", closed.address());
    let ran = moorline(
        home.path(),
        &["status", "--server", &server, "--certificate-authority", &ca, "--token-file", token.to_str().unwrap()],
    );
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.starts_with("error: unable to connect to the gateway at https://127.0.0.1:"), "{}", ran.err);
    assert!(ran.err.contains("hint: "), "{}", ran.err);
}

#[test]
fn completion_and_version_need_nothing() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ran = moorline(home.path(), &["completion", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("moorline") && ran.out.contains("quickstart"), "{shell}");
    }
    let ran = moorline(home.path(), &["version", "--client"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, concat!("Client Version: v", env!("CARGO_PKG_VERSION"), "\n")));
}

/// The path of an authority's certificate.
fn authority(home: &Path) -> String {
    let day = Duration::from_secs(24 * 60 * 60);
    let authority = moorline_ca::Authority::generate("test", Timestamp::from(SystemTime::now()), day).unwrap();
    let path = home.join("ca.crt");
    fs::write(&path, authority.certificate_pem()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_agents_roles_are_made_of_its_own_flags() {
    let flags =
        ["agent", "rbac", "--user-prefix", "hub:", "--allow-user", "hub:ann", "--allow-group=dev", "--no-extra"];
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| moorline(home.path(), args);
    let printed = run(&flags);
    assert_eq!((printed.code, printed.out.as_str()), (0, ROLES), "{}", printed.err);
    assert!(printed.err.is_empty(), "everything could be said: {}", printed.err);
    let open = run(&["agent", "rbac", "-o", "json", "--service-account", "ops/reader"]);
    assert!(open.err.contains("note: RBAC cannot deny"), "{}", open.err);
    let list: serde_json::Value = serde_json::from_str(&open.out).unwrap();
    assert_eq!(list["items"][1]["subjects"][0]["namespace"], "ops");
    for wrong in [
        &["--service-account", "agent"][..],
        &["--map-user", "ann"],
        &["--constrained"],
        &["--verb", "get"],
        &["--output", "wide"],
    ] {
        let refused = run(&[&["agent", "rbac"], wrong].concat());
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{wrong:?}: {}", refused.err);
    }
    assert_eq!(run(&["agent", "--no-uid", "rbac"]).code, 2, "flags that would not count");
}

const ROLES: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: moorline-agent
  labels:
    app.kubernetes.io/name: moorline-agent
    app.kubernetes.io/component: agent
    app.kubernetes.io/part-of: moorline
rules:
- apiGroups:
  - \"\"
  resources:
  - users
  resourceNames:
  - hub:ann
  verbs:
  - impersonate
- apiGroups:
  - \"\"
  resources:
  - groups
  resourceNames:
  - dev
  - system:authenticated
  - system:unauthenticated
  verbs:
  - impersonate
- apiGroups:
  - authentication.k8s.io
  resources:
  - uids
  verbs:
  - impersonate
- apiGroups:
  - \"\"
  resources:
  - namespaces
  resourceNames:
  - kube-system
  verbs:
  - get
- nonResourceURLs:
  - /readyz
  - /version
  verbs:
  - get
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: moorline-agent
  labels:
    app.kubernetes.io/name: moorline-agent
    app.kubernetes.io/component: agent
    app.kubernetes.io/part-of: moorline
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: moorline-agent
subjects:
- kind: ServiceAccount
  namespace: moorline
  name: moorline-agent
";

#[test]
fn records_go_out_of_a_store_and_into_another() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let [from, to, file] = ["from", "to", "records.yaml"].map(at);
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    let record = r#"{"apiVersion":"moorline.io/v1alpha1","kind":"ClusterRecordList","items":[{"name":"east",
        "uid":"67e55044-10b1-426f-9247-bb680e5fe0c8","created":"2026-11-21T03:53:00Z","labels":{"zone":"eu"}}]}"#;
    fs::write(&file, record).unwrap();
    let imported = moorline(home.path(), &["store", "import", &file, "--state-dir", &from]);
    assert_eq!((imported.code, imported.out.as_str()), (0, "1 clusters created, 0 replaced, 0 unchanged\n"));
    let exported = moorline(home.path(), &["store", "export", "--state-dir", &from]);
    assert!(exported.code == 0 && exported.out.contains("name: east"), "{}", exported.err);
    fs::write(&file, exported.out).unwrap();
    assert_eq!(moorline(home.path(), &["store", "import", &file, "--state-dir", &to]).code, 0);
    fs::write(&file, record.replace("eu", "us")).unwrap();
    let refused = moorline(home.path(), &["store", "import", &file, "--state-dir", &to]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("east") && refused.err.contains("--force"), "{}", refused.err);
    let forced = moorline(home.path(), &["store", "import", &file, "--force", "--state-dir", &to]);
    assert_eq!(forced.out, "0 clusters created, 1 replaced, 0 unchanged\n");
    let nowhere = moorline(home.path(), &["store", "export", "--state-dir", &at("nowhere")]);
    assert!(nowhere.code == 2 && nowhere.err.contains("is no directory"), "{}", nowhere.err);
}

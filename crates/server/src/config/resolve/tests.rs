//! What operators get wrong, and that they hear of all of it at once.

use super::*;
use crate::{audit::Mode, config::RawAudit};

fn raw(dir: &std::path::Path) -> RawConfig {
    RawConfig {
        state_dir: Some(dir.to_owned()),
        public_tunnel_address: Some("tunnel.example.com:9449".to_owned()),
        ..RawConfig::default()
    }
}

#[test]
fn defaults_are_complete() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::resolve(raw(dir.path())).unwrap();
    assert_eq!(config.tunnel_listen.to_string(), "0.0.0.0:9449");
    assert_eq!(config.gateway_listen.to_string(), "0.0.0.0:9443");
    assert_eq!(config.admin_listen.to_string(), "0.0.0.0:9091");
    assert_eq!(config.tunnel.heartbeat_interval, Duration::from_secs(5));
    assert_eq!(config.api_group, "moorline.io");
    assert_eq!(config.token_file, dir.path().join("tokens.csv"));
    assert_eq!(config.gateway.response_timeout, Duration::from_secs(90));
    let log = config.audit.log.unwrap();
    assert_eq!(log.path, Some(dir.path().join("audit.log")));
    assert_eq!((log.rotation.max_size, log.rotation.max_backups), (Some(100 << 20), Some(10)));
}

#[test]
fn every_problem_is_reported_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad");
    std::fs::write(&bad, "kind: Pod\n").unwrap();
    let problems = Config::resolve(RawConfig {
        tunnel_listen: Some("everywhere".to_owned()),
        public_tunnel_address: Some("https://tunnel".to_owned()),
        tls_cert_file: Some(bad.clone()),
        tls_sans: vec!["a b".to_owned()],
        client_ca_file: Some(bad.clone()),
        token_auth_file: Some(dir.path().join("none.csv")),
        authorization_policy_file: Some(bad.clone()),
        api_group: Some("Moorline".to_owned()),
        services_file: Some(bad.clone()),
        max_service_streams: Some(0),
        service_qps: Some(0),
        service_dial_timeout: Some("0".to_owned()),
        handshake_rate: Some(0),
        max_sessions: Some(0),
        hello_timeout: Some("5".to_owned()),
        handshake_timeout: Some("0".to_owned()),
        heartbeat_interval: Some("5m".to_owned()),
        memory_budget: Some("lots".to_owned()),
        audit: RawAudit {
            audit_policy_file: Some(bad.clone()),
            audit_log_mode: Some("sometimes".to_owned()),
            audit_log_batch_buffer_size: Some(0),
            audit_log_path: Some("off".into()),
            audit_webhook_batch_max_wait: Some("soon".to_owned()),
            audit_webhook_mode: Some("blocking-strict".to_owned()),
            ..RawAudit::default()
        },
        ..raw(dir.path())
    })
    .unwrap_err();
    let text = problems.to_string();
    for flag in [
        "--tunnel-listen: \"everywhere\"",
        "--public-tunnel-address: \"https://tunnel\"",
        "--tls-private-key-file: is not given",
        "--tls-san: \"a b\"",
        "--client-ca-file",
        "--token-auth-file",
        "--authorization-policy-file",
        "--services-file",
        "--max-service-streams: 0",
        "--service-qps: 0",
        "--service-dial-timeout: 0",
        "--api-group: \"Moorline\"",
        "--audit-policy-file",
        "--audit-log-mode: \"sometimes\"",
        "--audit-log-batch-buffer-size: 0",
        "--audit-policy-file: is given, but audit events are written nowhere",
        "--audit-webhook-batch-max-wait: \"soon\"",
        "--audit-webhook-mode: \"blocking-strict\"",
        "--audit-webhook-config-file: is not given",
        "--handshake-rate: 0",
        "--max-sessions: 0",
        "--hello-timeout: \"5\"",
        "--handshake-timeout: 0",
        "--heartbeat-interval: 300s",
        "--memory-budget: \"lots\"",
    ] {
        assert!(text.contains(flag), "{flag} is missing from:\n{text}");
    }
    for problem in &problems.0 {
        assert!(!problem.remedy.is_empty(), "{problem}");
    }
}

#[test]
fn the_public_address_may_be_left_out_where_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = RawConfig { public_tunnel_address: None, ..raw(dir.path()) };
    let text = Config::resolve(unknown.clone()).unwrap_err().to_string();
    assert!(text.starts_with("--public-tunnel-address: is not given"), "{text}");
    let known = RawConfig { tunnel_listen: Some("127.0.0.1:0".to_owned()), ..unknown };
    assert_eq!(Config::resolve(known).unwrap().public_tunnel_address, None);
}

#[test]
fn files_of_a_second_start_are_checked_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    StateDir::new(dir.path()).fill("moorline.io", crate::clock::now()).unwrap();
    Config::resolve(raw(dir.path())).unwrap();
    std::fs::write(dir.path().join("tokens.csv"), "secret-token,,\n").unwrap();
    let text = Config::resolve(raw(dir.path())).unwrap_err().to_string();
    assert!(text.contains("--token-auth-file") && text.contains("tokens.csv"), "{text}");
    assert!(!text.contains("secret-token"), "{text}");
}

#[test]
fn an_address_that_cannot_be_read_is_the_only_problem() {
    let dir = tempfile::tempdir().unwrap();
    let listen = Some("nope".to_owned());
    let wrong = RawConfig { tunnel_listen: listen, public_tunnel_address: None, ..raw(dir.path()) };
    let problems = Config::resolve(wrong).unwrap_err().to_string();
    assert!(problems.starts_with("--tunnel-listen: \"nope\"") && problems.lines().count() == 1, "{problems}");
}

#[test]
fn what_is_meant_for_kubernetes_needs_kubernetes() {
    let dir = tempfile::tempdir().unwrap();
    let raw = RawConfig {
        kubeconfig: Some("/nowhere/kubeconfig".into()),
        api_audiences: vec!["moorline".to_owned()],
        authentication_cache_ttl: Some("0".to_owned()),
        kubernetes_timeout: Some("0s".to_owned()),
        ..raw(dir.path())
    };
    let problems = Config::resolve(raw.clone()).unwrap_err().to_string();
    for flag in ["--kubeconfig", "--api-audiences", "--kubernetes-timeout"] {
        assert!(problems.contains(flag), "{problems}");
    }
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, "").unwrap();
    let asked = RawConfig {
        kubernetes_authn: true,
        kubernetes_authz: true,
        kubernetes_timeout: None,
        authorization_policy_file: Some(policy),
        ..raw
    };
    let problems = Config::resolve(asked.clone()).unwrap_err().to_string();
    assert!(problems.starts_with("--authorization-policy-file") && problems.lines().count() == 1, "{problems}");
    let config = Config::resolve(RawConfig { authorization_policy_file: None, ..asked }).unwrap();
    assert!(config.kubernetes.authn && config.kubernetes.authz);
    assert_eq!(config.kubernetes.audiences, ["moorline"]);
    assert_eq!(config.kubernetes.timeout.as_secs(), 5);
    assert!(config.kubernetes.token_lives.yes.is_zero(), "asked each time");
}

#[test]
fn the_audit_log_goes_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = |audit: RawAudit| Config::resolve(RawConfig { audit, ..raw(dir.path()) }).unwrap().audit.log;
    let to = |path: &str| RawAudit { audit_log_path: Some(path.into()), ..RawAudit::default() };
    assert!(log(to("off")).is_none());
    assert_eq!(log(to("-")).unwrap().path, None);
    let there = log(RawAudit {
        audit_log_maxsize: Some(0),
        audit_log_maxbackup: Some(0),
        audit_log_maxage: Some(7),
        audit_log_mode: Some("blocking".to_owned()),
        ..to("/there")
    })
    .unwrap();
    assert_eq!(there.path.as_deref(), Some(std::path::Path::new("/there")));
    let rotation = there.rotation;
    assert_eq!((rotation.max_size, rotation.max_backups), (None, None));
    assert_eq!((rotation.max_age, rotation.compress), (Some(Duration::from_secs(7 * 86_400)), false));
    assert_eq!(there.queue.mode, Mode::Blocking);
}

#[test]
fn anonymous_is_off_unless_it_is_said_as_kube_apiserver_says_it() {
    use clap::{Args as _, FromArgMatches as _};
    let told = |arguments: &[&str]| {
        let command = RawConfig::augment_args(clap::Command::new("server"));
        let matches = command.try_get_matches_from([&["server"], arguments].concat()).unwrap();
        RawConfig::from_arg_matches(&matches).unwrap().anonymous_auth
    };
    assert!(!told(&[]) && !told(&["--anonymous-auth=false"]));
    assert!(told(&["--anonymous-auth"]) && told(&["--anonymous-auth=true"]));
}

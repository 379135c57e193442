//! The state directory on its first, second and unlucky starts.

use std::os::unix::fs::PermissionsExt as _;

use moorline_access::{Policy, StaticTokens};

use super::*;

const GROUP: &str = "moorline.io";

fn now() -> Timestamp {
    crate::clock::now()
}

#[test]
fn the_first_start_makes_everything_and_the_second_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let state = StateDir::new(&path);
    state.fill(GROUP, now()).unwrap();
    let read = || {
        let mut files: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let first = read();
    assert_eq!(first.len(), 8);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for (file, _) in &first {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    state.fill(GROUP, now()).unwrap();
    assert_eq!(read(), first);
    for which in Which::ALL {
        assert_eq!(state.authority(which).unwrap().info().common_name(), Some(which.common_name()));
    }
}

#[test]
fn the_first_token_is_an_admin_of_the_first_policy() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    state.fill("clusters.example.com", now()).unwrap();
    let token = state.admin_token().unwrap().unwrap();
    assert_eq!(token.len(), 2 * TOKEN_BYTES);
    let tokens = StaticTokens::parse(&fs::read_to_string(state.tokens()).unwrap()).unwrap();
    let admin = tokens.authenticate(&token).unwrap();
    assert_eq!(admin.user(), ADMIN_USER);
    assert!(admin.groups().iter().any(|group| group == ADMIN_GROUP));
    let policy = Policy::parse(&fs::read_to_string(state.policy()).unwrap()).unwrap();
    let east = "east".parse().unwrap();
    for action in [
        moorline_access::Action::Reach(&east),
        moorline_access::Action::Administer { verb: "delete", name: Some(&east) },
        moorline_access::Action::Administer { verb: "create", name: None },
    ] {
        let attributes = action.attributes("clusters.example.com");
        assert!(matches!(policy.decide(&admin, &attributes), moorline_access::Decision::Allow { .. }));
        let other = action.attributes("moorline.io");
        assert_eq!(policy.decide(&admin, &other), moorline_access::Decision::NoOpinion);
    }
}

#[test]
fn the_token_is_found_where_a_person_has_edited_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    let table = "# x,admin,1\n\nabc,ann,1,\"g\"\nsha256:00,admin,2\n  def,admin,3,\"moorline:admins\"\n";
    fs::write(state.tokens(), table).unwrap();
    assert_eq!(state.admin_token().unwrap().as_deref(), Some("def"));
    fs::write(state.tokens(), "abc,ann,1\n").unwrap();
    assert_eq!(state.admin_token().unwrap(), None);
}

#[test]
fn a_half_of_a_pair_is_reported_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    state.fill(GROUP, now()).unwrap();
    let certificate = fs::read(state.certificate(Which::Tunnel)).unwrap();
    fs::remove_file(state.key(Which::Tunnel)).unwrap();
    fs::remove_file(state.certificate(Which::User)).unwrap();
    let problems = state.fill(GROUP, now()).unwrap_err();
    let text = problems.to_string();
    assert_eq!(problems.0.len(), 2, "{text}");
    assert!(text.contains("tunnel-ca.key: is missing") && text.contains("user-ca.crt: is missing"), "{text}");
    assert_eq!(fs::read(state.certificate(Which::Tunnel)).unwrap(), certificate);
    assert!(!state.key(Which::Tunnel).exists());
}

#[test]
fn a_secret_that_others_can_read_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path());
    state.fill(GROUP, now()).unwrap();
    fs::set_permissions(state.key(Which::Gateway), fs::Permissions::from_mode(0o640)).unwrap();
    let text = state.fill(GROUP, now()).unwrap_err().to_string();
    assert!(text.contains("gateway-ca.key: is secret") && text.contains("chmod 600"), "{text}");
}

/// A crash at each step of making an authority: the next start has a whole one, and finishes what can be finished.
#[test]
fn an_authority_that_a_crash_left_half_made_is_finished() {
    let whole = tempfile::tempdir().unwrap();
    StateDir::new(whole.path()).fill(GROUP, now()).unwrap();
    let read = |name: &str| fs::read(whole.path().join(name)).unwrap();
    for certificate_too in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create_private(&at("tunnel-ca.key.new"), &read("tunnel-ca.key")).unwrap();
        if certificate_too {
            create_private(&at("tunnel-ca.crt"), &read("tunnel-ca.crt")).unwrap();
        }
        let state = StateDir::new(dir.path());
        state.fill(GROUP, now()).unwrap();
        state.authority(Which::Tunnel).unwrap();
        let kept = fs::read(at("tunnel-ca.key")).unwrap() == read("tunnel-ca.key");
        assert_eq!(kept, certificate_too, "agents may hold certificates only of an authority that had one itself");
        assert!(!at("tunnel-ca.key.new").exists());
        assert_eq!(fs::metadata(at("tunnel-ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let dir = tempfile::tempdir().unwrap();
    create_private(&dir.path().join("tunnel-ca.key.new"), &read("gateway-ca.key")).unwrap();
    create_private(&dir.path().join("tunnel-ca.crt"), &read("tunnel-ca.crt")).unwrap();
    assert!(StateDir::new(dir.path()).fill(GROUP, now()).is_err(), "somebody else's key is left alone");
}

/// Where Kubernetes decides, those whom the first start makes administrators must have by its roles what they have here.
#[test]
fn deployed_administrators_may_all_that_the_first_policy_gives_them() {
    let ours = |text: &str| -> Vec<String> {
        let role = text.split_once("name: moorline-admin\n").unwrap().1;
        let list = role.split_once("resources: [").unwrap().1.split_once(']').unwrap().0;
        list.split(',').map(|resource| resource.trim().trim_matches('"').to_owned()).collect()
    };
    let given = ours(&first_policy(GROUP));
    assert!(given.contains(&"managedclusters".to_owned()), "{given:?}");
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for file in ["kustomize/server/base/rbac.yaml", "helm/moorline-server/templates/rbac.yaml"] {
        let deployed = ours(&fs::read_to_string(deploy.join(file)).unwrap());
        let missing: Vec<_> = given.iter().filter(|resource| !deployed.contains(resource)).collect();
        assert!(missing.is_empty(), "{file} lacks {missing:?}");
    }
}

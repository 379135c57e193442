//! Policy and tokens change under a running server; what is broken never replaces what was good.

use http::StatusCode;
use moorline_process::write_private;
use moorline_testkit::logs::Line;

use super::people::{ALICE, BOB, House, table, until};

/// Bob's way to `east`, to be added to the policy.
const FOR_BOB: &str = "
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: for-bob}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: bob}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: east}
";

async fn house() -> House {
    House::with("", |raw| raw.reload_interval = Some("50ms".to_owned())).await
}

impl House {
    async fn reloads(&self, outcome: &str) -> f64 {
        self.server.metric("moorline_reloads_total", &[outcome]).await.unwrap()
    }

    async fn code(&self, token: &str) -> StatusCode {
        self.user(token).get("/clusters/east/api").await.unwrap().code
    }

    /// Writes something broken, waits until it is refused, and gives the warning.
    async fn refuses(&self, file: &str, content: &[u8]) -> Line {
        let before = self.reloads("refused").await;
        let path = self.server.directory().join(file);
        let warnings = || {
            let mut lines = self.logs.lines();
            lines.retain(|line| line.text.contains("cannot reload") && line.text.contains(&*path.to_string_lossy()));
            lines
        };
        let warned = warnings().len();
        write_private(&path, content).unwrap();
        until("it is refused", async || warnings().len() > warned).await;
        assert!(self.reloads("refused").await > before);
        let line = warnings().pop().unwrap();
        assert_eq!(line.level, tracing::Level::WARN, "{}", line.text);
        assert_eq!(self.code(ALICE).await, StatusCode::OK, "after {file} {}", String::from_utf8_lossy(content));
        line
    }
}

#[tokio::test]
async fn a_broken_policy_never_replaces_a_good_one() {
    let house = house().await;
    let file = house.server.directory().join("policy.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    let half = good.split_at(good.rfind("name: east").unwrap()).0;
    let role_gone =
        good.replacen("kind: ClusterRole\nmetadata: {name: east}", "kind: ClusterRole\nmetadata: {name: x}", 1);
    assert_ne!(role_gone, good);
    for (broken, said) in [
        ("rules: [", "line"),
        ("kind: Role", "kind"),
        (half, "policy.yaml"),
        (role_gone.as_str(), "no ClusterRole \"east\" in this file"),
        (&good.replace("verbs:", "verb:"), "unknown field"),
    ] {
        let line = house.refuses("policy.yaml", broken.as_bytes()).await;
        assert!(line.text.contains(said), "{said}: {}", line.text);
        assert_eq!(house.code(BOB).await, StatusCode::FORBIDDEN);
    }
    house.refuses("policy.yaml", b"\xff\xfe not text").await;

    let changed = house.reloads("changed").await;
    write_private(&file, format!("{good}{FOR_BOB}").as_bytes()).unwrap();
    until("Bob has access", async || house.code(BOB).await == StatusCode::OK).await;
    write_private(&file, good.as_bytes()).unwrap();
    until("Bob has lost it", async || house.code(BOB).await == StatusCode::FORBIDDEN).await;
    assert!(house.reloads("changed").await >= changed + 2.0);
}

#[tokio::test]
async fn a_policy_that_vanishes_goes_on_to_hold() {
    let house = house().await;
    let before = house.reloads("refused").await;
    std::fs::remove_file(house.server.directory().join("policy.yaml")).unwrap();
    until("it is missed", async || house.reloads("refused").await > before).await;
    assert_eq!((house.code(ALICE).await, house.code(BOB).await), (StatusCode::OK, StatusCode::FORBIDDEN));
}

#[tokio::test]
async fn a_broken_table_of_tokens_never_replaces_a_good_one_and_is_not_quoted() {
    let house = house().await;
    const SECRET: &str = "a-token-in-a-broken-file-30c1";
    house.logs.forbid(SECRET);
    for broken in
        [format!("{SECRET},dave"), format!("{SECRET},,3"), format!("{SECRET},\"dave,4"), format!("{SECRET} x,dave,4")]
    {
        let line = house.refuses("tokens.csv", table(&broken).as_bytes()).await;
        assert!(line.text.contains("line 5"), "{}", line.text);
        assert_eq!(house.code(SECRET).await, StatusCode::UNAUTHORIZED);
    }
    let file = house.server.directory().join("tokens.csv");
    write_private(&file, table(&format!("{SECRET},dave,4\n")).as_bytes()).unwrap();
    until("Dave has access", async || house.code(SECRET).await == StatusCode::OK).await;
}

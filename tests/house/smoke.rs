//! The main job, once: a request goes through and arrives as the user.

use http::StatusCode;
use moorline_testkit::house::Server;
use moorline_testkit::logs::Logs;
use moorline_testkit::upstream::Upstream;

#[tokio::test]
async fn a_request_arrives_as_its_user() {
    let _logs = Logs::capture();
    let upstream = Upstream::start().await.unwrap();
    let server = Server::start().await.unwrap();
    let _agent = server.agent("east", &upstream.url()).await.unwrap();
    let answer = server.admin_client().unwrap().get("/clusters/east/api/v1/pods?limit=3").await.unwrap();
    assert_eq!(answer.code, StatusCode::OK);
    let seen = upstream.seen("/api/v1/pods").pop().unwrap();
    assert_eq!(seen.values("impersonate-user"), ["admin"]);
    assert_eq!(seen.values("authorization"), ["Bearer the-agent's-own-token"]);
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("x-moorline-")));
}

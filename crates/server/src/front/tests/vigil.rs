//! What runs long ends when its user's right or credential does.

use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use moorline_access::{Policy, StaticTokens};
use tokio::io::AsyncReadExt as _;

use super::{
    agent::text,
    house::House,
    user::{User, ask, empty, get, status},
};

const WATCH: &str = "/clusters/east/api/v1/pods?watch=true";

fn house() -> House {
    House::with(|gateway| gateway.recheck_interval = Duration::from_millis(50))
}

type End = fn(&House);

/// Each takes from alice what she needs in another way.
const ENDS: [End; 3] = [
    |house| house.state.tokens.store(StaticTokens::parse("other,somebody,,\n").unwrap().into()),
    |house| house.state.tokens.store(StaticTokens::parse("alice-token,alice,,\"other\"\n").unwrap().into()),
    |house| house.state.policy.store(Policy::default().into()),
];

#[tokio::test]
async fn a_running_watch_ends_with_the_right_to_it() {
    for end in ENDS {
        let mut house = house();
        let (mut one, mut two) = (house.h1().await, house.h2().await);
        for user in [&mut one, &mut two] {
            let (response, (pieces, gone)) = tokio::join!(user.get(WATCH), async {
                house.agent.next().await.stream(Response::builder().header("content-type", "application/json"))
            });
            let mut body = response.into_body();
            pieces.send("{}\n").await;
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "{}\n");
            let (tokens, policy) = (house.state.tokens.load_full(), house.state.policy.load_full());
            end(&house);
            assert_eq!(body.collect().await.unwrap().to_bytes(), "", "after a whole event it ends as a watch does");
            gone.cancelled().await;
            assert_eq!(house.shared.metrics.running.get(), 0);
            house.state.tokens.store(tokens);
            house.state.policy.store(policy);
        }
        assert_eq!(house.shared.metrics.forbidden.get(), 2);
    }
}

#[tokio::test]
async fn a_running_exec_ends_with_the_right_to_it() {
    for end in ENDS {
        let mut house = house();
        let mut user = house.h1().await;
        let request = ask("POST", "/clusters/east/api/v1/namespaces/a/pods/b/exec?command=sh")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .body(empty())
            .unwrap();
        let (response, agent) = tokio::join!(user.send(request), async {
            let switched = Response::builder().status(101).header("connection", "Upgrade");
            house.agent.next().await.answer(switched.header("upgrade", "websocket").body(text("")).unwrap())
        });
        let (ours, theirs) = tokio::join!(hyper::upgrade::on(response.unwrap()), hyper::upgrade::on(agent));
        let (mut ours, mut theirs) = (TokioIo::new(ours.unwrap()), TokioIo::new(theirs.unwrap()));
        end(&house);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert_eq!(theirs.read(&mut [0; 8]).await.unwrap_or(0), 0);
        house.settle().await;
        assert_eq!(house.shared.metrics.forbidden.get(), 1);
    }
}

#[tokio::test]
async fn who_waits_for_a_first_line_is_told_that_the_right_is_gone() {
    let mut house = house();
    let mut user = house.h1().await;
    let follow = "/clusters/east/api/v1/namespaces/a/pods/b/log?follow=true";
    let (response, _arrival) = tokio::join!(user.get(follow), async {
        let arrival = house.agent.next().await;
        house.state.policy.store(Policy::default().into());
        arrival
    });
    assert_eq!(status(response).await["code"], 403);
}

#[tokio::test]
async fn a_right_to_act_as_somebody_is_looked_at_again_too() {
    let mut house = house();
    let mut user: User = house.h1().await;
    let mut request = get(WATCH);
    request.headers_mut().insert("impersonate-user", "bob".parse().unwrap());
    let (response, (pieces, gone)) = tokio::join!(user.send(request), async {
        house.agent.next().await.stream(Response::builder().header("content-type", "application/json"))
    });
    let mut body = response.unwrap().into_body();
    pieces.send("{}\n").await;
    assert!(body.frame().await.unwrap().is_ok());
    let only_reach = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reach}
rules: [{apiGroups: [moorline.io], resources: [managedclusters], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reach}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reach}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}, {apiGroup: rbac.authorization.k8s.io, kind: User, name: bob}]
"#;
    house.state.policy.store(Policy::parse(only_reach).unwrap().into());
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
    gone.cancelled().await;
}

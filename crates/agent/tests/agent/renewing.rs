//! Renewals, authorities, and whoever else has to do with the agent's files. The server is scripted.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use moorline_ca::Authority;
use moorline_model::ClusterUid;
use moorline_pki::CertificateRequest;
use moorline_wire::{Heartbeat, HeartbeatAck, Message, RenewAnswer, RenewOrder, RenewRequest, RootsOrder};

use crate::{
    bench::{Agent, now},
    hub::{Hub, QUIET},
    upstream::Upstream,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Orders to believe other authorities are carried out beside what keeps the session alive.
#[tokio::test]
async fn heartbeats_are_answered_while_the_disk_hangs() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let _agent = Agent::start(&hub.raw(&upstream.url()));
    let mut session = hub.session(QUIET).await;
    let (key, pipe, beside) = (hub.file("managed-cluster.key"), hub.file("pipe"), hub.file("beside"));
    fs::copy(&key, &beside).unwrap();
    // Who reads it waits until somebody writes into it.
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::rename(&pipe, &key).unwrap();
    let pem = fs::read_to_string(hub.file("management-cluster.crt")).unwrap();
    session.say(&Message::Roots(RootsOrder { pem })).await;
    for sequence in 7..9 {
        session.say(&Message::Heartbeat(Heartbeat { sequence })).await;
        let answered = |message: &Message| match message {
            Message::RootsTaken(_) => panic!("the disk hangs"),
            message => (*message == Message::HeartbeatAck(HeartbeatAck { sequence })).then_some(()),
        };
        session.find(answered).await;
    }
    let text = fs::read(&beside).unwrap();
    let writing = tokio::task::spawn_blocking(move || {
        let mut waits = OpenOptions::new().write(true).open(&key).unwrap();
        fs::rename(beside, key).unwrap();
        waits.write_all(&text).unwrap();
    });
    let taken =
        session.find(|message| if let Message::RootsTaken(taken) = message { Some(taken.clone()) } else { None });
    assert_eq!(taken.await.error, None);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_put_there_during_a_renewal_is_the_one_that_stays() {
    let authority = Authority::generate("tunnel", now(), 10 * DAY).unwrap();
    let (hub, upstream) = (Hub::trusting(&authority, &authority).await, Upstream::start().await);
    let agent = Agent::start(&hub.raw(&upstream.url()));
    let mut session = hub.session(QUIET).await;
    session.say(&Message::Renew(RenewOrder { within_ms: 0 })).await;
    let stream = session.opened().await;
    // Such as with the manifest of the agent that is to take over.
    hub.install(&authority);
    let theirs = hub.secret()["data"].clone();
    let renew = async |request: Request<Incoming>| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let RenewRequest { request } = serde_json::from_slice(&body).unwrap();
        let request = CertificateRequest::from_pem(request.as_bytes()).unwrap();
        let uid = ClusterUid::from_bytes([1; 16]);
        let made = authority.issue_agent_for(&"prod".parse().unwrap(), &uid, &request, now(), DAY).unwrap();
        let roots = authority.certificate_pem().to_owned();
        let answer = RenewAnswer { certificate: made.certificate_pem, roots };
        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(serde_json::to_vec(&answer).unwrap()))))
    };
    // It ends with the agent's side.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(renew)).await);
    agent.shows("moorline_agent_certificate_renewals_total{result=\"ok\"} 1").await;
    assert_eq!(hub.secret()["data"], theirs);
}

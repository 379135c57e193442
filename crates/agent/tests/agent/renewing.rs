//! Renewals and whoever else changes the agent's files. The server is scripted.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use moorline_ca::Authority;
use moorline_model::ClusterUid;
use moorline_pki::CertificateRequest;
use moorline_wire::{Message, RenewAnswer, RenewOrder, RenewRequest};

use crate::{
    bench::{Agent, now},
    hub::{Hub, QUIET},
    upstream::Upstream,
};

const DAY: Duration = Duration::from_secs(86_400);

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

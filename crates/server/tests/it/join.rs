//! Joining: who gets a certificate and who does not, what they are told, and what is kept, logged and written down.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_api::{CreatedJoinToken, JoinTokenList, JoinTokenPhase, JoinableCluster, paths};
use moorline_csr::Request as SigningRequest;
use moorline_model::Timestamp;
use moorline_mtls::{HandshakeError, JoinConnector};
use moorline_server::RawAudit;
use moorline_testkit::logs::Logs;
use moorline_wire::{
    Invitation, JOIN_ALPN, JOIN_PATH, JoinAnswer, JoinProof, JoinRefusal, JoinRefused, JoinRequest, JoinSecret,
};
use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    agent::{Agent, Credentials},
    house::{House, LIMIT, logs_tell},
    user::User,
};

/// Registers a cluster whose agent is to join.
async fn invited(user: &User, name: &str) -> Invitation {
    let (code, body) = user.ask(Method::POST, paths::CLUSTERS, &format!("{{\"name\":{name:?},\"join\":{{}}}}")).await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    read(&body)
}

async fn another(user: &User, name: &str) -> Invitation {
    let (code, body) = user.ask(Method::POST, &paths::join_token(&name.parse().unwrap()), "{}").await;
    assert_eq!(code, StatusCode::CREATED, "{body}");
    read(&body)
}

fn read(body: &str) -> Invitation {
    let created: CreatedJoinToken = serde_json::from_str(body).unwrap();
    created.token.expose().parse().unwrap()
}

fn asks(invitation: &Invitation, request: &SigningRequest) -> JoinRequest {
    let proof = JoinProof::Token { id: invitation.id.clone(), secret: invitation.secret.clone() };
    JoinRequest { name: invitation.name.clone(), proof, request: request.request_pem.clone() }
}

/// Sends a body to the door of those who join.
async fn post(
    house: &House,
    invitation: &Invitation,
    path: &str,
    body: String,
) -> Result<(StatusCode, Bytes), HandshakeError> {
    let socket = TcpStream::connect(house.tunnel).await.unwrap();
    let connector = JoinConnector::new(invitation.pins.clone(), JOIN_ALPN);
    let tls = connector.connect(socket, "moorline-tunnel", LIMIT).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post(path).header("host", "moorline-tunnel").body(Full::new(Bytes::from(body))).unwrap();
    let response = tokio::time::timeout(LIMIT, sender.send_request(request)).await.expect("an answer").unwrap();
    let code = response.status();
    let body = tokio::time::timeout(LIMIT, response.into_body().collect()).await.expect("a body").unwrap();
    connection.abort();
    Ok((code, body.to_bytes()))
}

async fn join(house: &House, invitation: &Invitation, asked: &JoinRequest) -> Result<JoinAnswer, JoinRefused> {
    let body = serde_json::to_string(asked).unwrap();
    let (code, body) = post(house, invitation, JOIN_PATH, body).await.unwrap();
    if code == StatusCode::OK {
        return Ok(serde_json::from_slice(&body).unwrap());
    }
    let refused: JoinRefused = serde_json::from_slice(&body).unwrap();
    assert_eq!(refused.known().map(JoinRefusal::status), Some(code.as_u16()));
    Err(refused)
}

async fn refused(house: &House, invitation: &Invitation, asked: &JoinRequest) -> JoinRefusal {
    join(house, invitation, asked).await.unwrap_err().known().unwrap()
}

fn credentials(answer: &JoinAnswer, request: &SigningRequest) -> Credentials {
    Credentials {
        authority: answer.roots.clone(),
        certificate: answer.certificate.clone(),
        key: request.key_pem.to_string(),
    }
}

#[tokio::test]
async fn a_token_makes_an_agent_once() {
    let (logs, log) = (Logs::capture(), tempfile::tempdir().unwrap());
    let file: PathBuf = log.path().join("audit.log");
    let house =
        House::start_with(|raw| raw.audit = RawAudit { audit_log_path: Some(file.clone()), ..RawAudit::default() })
            .await;
    let user = house.user();
    let invitation = invited(&user, "east").await;
    logs.forbid(serde_json::to_value(&invitation.secret).unwrap().as_str().unwrap());
    logs.forbid(&invitation.to_text());
    assert_eq!(invitation.address, house.tunnel.to_string());
    let cluster = user.cluster("east").await;
    assert!(cluster.status.fingerprints.is_empty() && !cluster.status.connected);

    let (mine, other) = (SigningRequest::generate().unwrap(), SigningRequest::generate().unwrap());
    let answer = join(&house, &invitation, &asks(&invitation, &mine)).await.unwrap();
    assert_eq!((answer.name.as_str(), &answer.address), ("east", &invitation.address));
    let agent = Agent::connect(&house, &credentials(&answer, &mine)).await.live("east");
    assert_eq!(user.cluster("east").await.status.fingerprints.len(), 1);

    // Whoever lost the answer gets the same one; another key gets none.
    assert_eq!(join(&house, &invitation, &asks(&invitation, &mine)).await.unwrap(), answer);
    let again = join(&house, &invitation, &asks(&invitation, &other)).await.unwrap_err();
    assert_eq!(again.known(), Some(JoinRefusal::TokenUsed));
    assert!(again.message.contains("moorline token create east"), "{}", again.message);
    assert_eq!(user.cluster("east").await.status.fingerprints.len(), 1);
    assert_eq!(user.cluster("east").await.status.sessions.len(), 1, "nobody's session ended of that");

    let (code, _) = post(&house, &invitation, "/elsewhere", "{}".to_owned()).await.unwrap();
    assert_eq!(code, StatusCode::BAD_REQUEST);

    let metrics = house.metrics().await;
    assert!(metrics.contains("moorline_joins_total{outcome=\"joined\"} 2"), "{metrics}");
    assert!(metrics.contains("moorline_joins_total{outcome=\"TokenUsed\"} 1"), "{metrics}");
    logs_tell(&logs, &["an agent joined", "east", &invitation.id]).await;
    logs_tell(&logs, &["wants to join was refused", "TokenUsed"]).await;
    drop((agent, house.ended().await));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(!written.contains("/elsewhere"), "a stranger writes into the audit log");
    let joins: Vec<serde_json::Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &serde_json::Value| event["requestURI"] == JOIN_PATH)
        .collect();
    let told: Vec<_> = joins
        .iter()
        .map(|event| (&event["responseStatus"]["code"], &event["annotations"]["moorline.io/cause"]))
        .collect();
    assert_eq!(
        told,
        [
            (&200.into(), &serde_json::Value::Null),
            (&200.into(), &serde_json::Value::Null),
            (&403.into(), &"TokenUsed".into())
        ]
    );
    for event in &joins {
        assert_eq!((&event["user"]["username"], &event["verb"]), (&"system:moorline:join".into(), &"create".into()));
        let about = &event["objectRef"];
        assert_eq!(
            (&about["resource"], &about["name"], &about["subresource"]),
            (&"managedclusters".into(), &"east".into(), &"join".into())
        );
    }
    let secret = serde_json::to_value(&invitation.secret).unwrap();
    assert!(!written.contains(secret.as_str().unwrap()), "a secret was written down");
}

#[tokio::test]
async fn every_wrong_token_is_refused_in_words() {
    let house = House::start().await;
    let user = house.user();
    let (east, west) = (invited(&user, "east").await, invited(&user, "west").await);
    let mine = SigningRequest::generate().unwrap();

    let forged = Invitation { secret: JoinSecret::from_bytes([7; 32]), ..east.clone() };
    let made_up = Invitation { id: "ffffffffffff".to_owned(), ..east.clone() };
    let one = join(&house, &east, &asks(&forged, &mine)).await.unwrap_err();
    let two = join(&house, &east, &asks(&made_up, &mine)).await.unwrap_err();
    assert_eq!(one.known(), Some(JoinRefusal::UnknownToken));
    assert_eq!(one, two, "an unknown id and a wrong secret look the same");

    let misused = Invitation { name: west.name.clone(), ..east.clone() };
    let told = join(&house, &east, &asks(&misused, &mine)).await.unwrap_err();
    assert_eq!(told.known(), Some(JoinRefusal::WrongName));
    assert!(told.message.contains("is for the cluster east, not for west"), "{}", told.message);

    let garbage = JoinRequest { request: "nothing".to_owned(), ..asks(&east, &mine) };
    assert_eq!(refused(&house, &east, &garbage).await, JoinRefusal::BadRequest);
    for (path, body) in [(JOIN_PATH, "{}"), (JOIN_PATH, "\u{0}"), ("/", "{}"), ("/v1/clusters", "{}")] {
        let (code, _) = post(&house, &east, path, body.to_owned()).await.unwrap();
        assert_eq!(code, StatusCode::BAD_REQUEST, "{path} {body:?}");
    }
    let (code, _) = post(&house, &east, JOIN_PATH, "x".repeat(100_000)).await.unwrap();
    assert_eq!(code, StatusCode::BAD_REQUEST);

    // None of that used the token up. Revoked, it lets nobody in; nor does one of a deleted cluster.
    let (code, list) = user.ask(Method::GET, paths::JOIN_TOKENS, "").await;
    let list: JoinTokenList = serde_json::from_str(&list).unwrap();
    assert_eq!((code, list.items.len()), (StatusCode::OK, 2));
    assert!(list.items.iter().all(|token| token.status.phase == JoinTokenPhase::Valid));
    let path = |invitation: &Invitation| format!("{}?id={}", paths::join_token(&invitation.name), invitation.id);
    assert_eq!(user.ask(Method::DELETE, &path(&east), "").await.0, StatusCode::OK);
    assert_eq!(user.ask(Method::DELETE, &path(&east), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(refused(&house, &east, &asks(&east, &mine)).await, JoinRefusal::UnknownToken);
    assert_eq!(user.delete("west").await.0, StatusCode::OK);
    assert_eq!(refused(&house, &west, &asks(&west, &mine)).await, JoinRefusal::UnknownToken);
    let fresh = another(&user, "east").await;
    join(&house, &fresh, &asks(&fresh, &mine)).await.unwrap();
    drop(house.ended().await);
}

#[tokio::test]
async fn the_pin_must_be_that_of_this_server() {
    let house = House::start().await;
    let invitation = invited(&house.user(), "east").await;
    let elsewhere = Invitation { pins: vec![moorline_pki::fingerprint(b"another")], ..invitation.clone() };
    let asked = asks(&invitation, &SigningRequest::generate().unwrap());
    let error = post(&house, &elsewhere, JOIN_PATH, serde_json::to_string(&asked).unwrap()).await.unwrap_err();
    assert_eq!(error, HandshakeError::WrongPin);
    drop(house.ended().await);
}

#[tokio::test]
async fn who_may_make_tokens_and_for_how_long() {
    let house = House::start().await;
    let user = house.user();
    drop(invited(&user, "east").await);
    let path = paths::join_token(&"east".parse().unwrap());
    for (body, code) in [
        (r#"{"expirationSeconds":300}"#, StatusCode::CREATED),
        (r#"{"expirationSeconds":604800}"#, StatusCode::CREATED),
        (r#"{"expirationSeconds":299}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"expirationSeconds":604801}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"ttl":"1h"}"#, StatusCode::BAD_REQUEST),
    ] {
        let (told, answer) = user.ask(Method::POST, &path, body).await;
        assert_eq!(told, code, "{body}: {answer}");
    }
    for _ in 0..5 {
        drop(another(&user, "east").await);
    }
    let (code, told) = user.ask(Method::POST, &path, "{}").await;
    assert_eq!(code, StatusCode::CONFLICT, "{told}");
    assert!(told.contains("8 unused join tokens"), "{told}");
    let (code, _) = user.ask(Method::POST, &paths::join_token(&"nowhere".parse().unwrap()), "{}").await;
    assert_eq!(code, StatusCode::NOT_FOUND);

    let (_, made) = user.ask(Method::POST, paths::USERS, r#"{"name":"ann"}"#).await;
    let made: moorline_api::CreatedUser = serde_json::from_str(&made).unwrap();
    let ann = user.clone().with_token(made.token.expose());
    for (method, path) in
        [(Method::POST, path.as_str()), (Method::GET, paths::JOIN_TOKENS), (Method::DELETE, &format!("{path}?id=x"))]
    {
        let (code, told) = ann.ask(method.clone(), path, "{}").await;
        assert_eq!(code, StatusCode::FORBIDDEN, "{method} {path}: {told}");
        assert!(told.contains("managedclusters/token"), "{told}");
    }
    drop(house.ended().await);
}

#[tokio::test]
async fn a_flood_of_wrong_joins_is_slowed_and_takes_no_agents_place() {
    const ROUNDS: u64 = 60;
    let house = House::start_with(|raw| {
        // Places for two agents' handshakes, and a rate that only agents count in.
        raw.max_handshakes = Some(2);
        raw.handshake_rate = Some(20);
    })
    .await;
    let user = house.user();
    let enrolled = Credentials::from(&user.create("west").await.enrolment);
    let east = invited(&user, "east").await;
    let forged = Invitation { secret: JoinSecret::from_bytes([7; 32]), ..east.clone() };
    let asked = serde_json::to_string(&asks(&forged, &SigningRequest::generate().unwrap())).unwrap();
    let (mut slowed, mut connected) = (0, 0);
    let began = Instant::now();
    for round in 0..ROUNDS {
        let answer = tokio::time::timeout(LIMIT, post_leniently(&house, &east, asked.clone())).await.expect("an end");
        slowed += u64::from(answer == Some(StatusCode::TOO_MANY_REQUESTS));
        if round % 20 == 0 {
            let agent = tokio::time::timeout(LIMIT, Agent::connect(&house, &enrolled)).await;
            connected += u64::from(agent.is_ok());
        }
    }
    // So many at once, and so many a second: on a slow machine they are no flood.
    let heard = 21 + 5 * (began.elapsed().as_secs() + 1);
    assert!(slowed + heard >= ROUNDS, "{slowed} of {ROUNDS} slowed, {heard} may be heard");
    assert_eq!(connected, ROUNDS / 20, "agents come in as ever");
    let metrics = house.metrics().await;
    assert!(metrics.contains("moorline_joins_total{outcome=\"TooMany\"}"), "{metrics}");
    assert!(!metrics.contains("moorline_tunnel_refused_total{reason=\"rate\"}"), "{metrics}");
    drop(house.ended().await);
}

#[tokio::test]
async fn those_who_join_and_say_nothing_hold_no_agents_place() {
    let house = House::start_with(|raw| raw.max_handshakes = Some(2)).await;
    let user = house.user();
    let enrolled = Credentials::from(&user.create("west").await.enrolment);
    let east = invited(&user, "east").await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let socket = TcpStream::connect(house.tunnel).await.unwrap();
        let connector = JoinConnector::new(east.pins.clone(), JOIN_ALPN);
        silent.push(connector.connect(socket, "moorline-tunnel", LIMIT).await.unwrap());
    }
    let agent = tokio::time::timeout(Duration::from_secs(10), Agent::connect(&house, &enrolled)).await;
    drop((agent.expect("let in at once"), silent, house.ended().await));
}

/// As [`post`], of a connection that may be hung up on at any moment.
async fn post_leniently(house: &House, invitation: &Invitation, body: String) -> Option<StatusCode> {
    let socket = TcpStream::connect(house.tunnel).await.ok()?;
    let connector = JoinConnector::new(invitation.pins.clone(), JOIN_ALPN);
    let tls = connector.connect(socket, "moorline-tunnel", LIMIT).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::post(JOIN_PATH).header("host", "x").body(Full::new(Bytes::from(body))).ok()?;
    let answer = sender.send_request(request).await.ok().map(|response| response.status());
    connection.abort();
    answer
}

/// What a kube-apiserver signs service-account tokens with.
struct Issuer(EcdsaKeyPair);

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const ACCOUNT: &str = "system:serviceaccount:moorline:moorline-agent";

impl Issuer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwks(&self) -> String {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one", "x": x, "y": y}]})
            .to_string()
    }

    fn token(&self, account: &str, audience: &str) -> String {
        let ends = Timestamp::from(SystemTime::now()).unix_seconds() + 600;
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let claims = json!({"iss": ISSUER, "aud": [audience], "sub": account, "exp": ends});
        let signed = format!("{}.{}", part(json!({"alg": "ES256", "kid": "one"})), part(claims));
        let signature = self.0.sign(&aws_lc_rs::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test]
async fn what_kubernetes_attests_makes_an_agent_without_a_secret() {
    let logs = Logs::capture();
    let house = House::start().await;
    let (user, issuer) = (house.user(), Issuer::new());
    let attestation = json!({"issuer": ISSUER, "audience": "moorline", "subject": ACCOUNT, "jwks": issuer.jwks()});
    let body = json!({"name": "east", "attestation": attestation}).to_string();
    let (code, made) = user.ask(Method::POST, paths::CLUSTERS, &body).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let made: JoinableCluster = serde_json::from_str(&made).unwrap();
    drop(invited(&user, "west").await);
    let known = Invitation {
        address: made.management_cluster_addr,
        name: "east".parse().unwrap(),
        id: "none".to_owned(),
        secret: JoinSecret::from_bytes([0; 32]),
        pins: made.ca_pins,
    };
    let mine = SigningRequest::generate().unwrap();
    let shows = |name: &str, token: &str| JoinRequest {
        name: name.parse().unwrap(),
        proof: JoinProof::Attestation(token.to_owned().into()),
        request: mine.request_pem.clone(),
    };
    let good = issuer.token(ACCOUNT, "moorline");
    logs.forbid(&good);
    for (name, token) in [
        ("east", issuer.token("system:serviceaccount:moorline:other", "moorline")),
        ("east", issuer.token(ACCOUNT, ISSUER)),
        ("east", Issuer::new().token(ACCOUNT, "moorline")),
        ("east", "nothing".to_owned()),
        ("west", good.clone()),
        ("nowhere", good.clone()),
    ] {
        assert_eq!(refused(&house, &known, &shows(name, &token)).await, JoinRefusal::NotAttested, "{name}");
    }
    let answer = join(&house, &known, &shows("east", &good)).await.unwrap();
    let agent = Agent::connect(&house, &credentials(&answer, &mine)).await.live("east");
    // Whoever lost the answer asks again; what nobody connected with makes room.
    for _ in 0..3 {
        join(&house, &known, &shows("east", &good)).await.unwrap();
    }
    assert!(user.cluster("east").await.status.fingerprints.len() <= 2);
    assert_eq!(user.cluster("east").await.status.sessions.len(), 1);
    drop((agent, house.ended().await));
}

#[tokio::test]
async fn an_attestation_that_could_let_nobody_in_is_refused() {
    let house = House::start().await;
    let (user, jwks) = (house.user(), Issuer::new().jwks());
    for (field, bad) in [("issuer", ""), ("audience", ""), ("subject", "ann"), ("jwks", "{\"keys\":[]}")] {
        let mut attestation = json!({"issuer": ISSUER, "audience": "moorline", "subject": ACCOUNT, "jwks": jwks});
        attestation[field] = bad.into();
        let body = json!({"name": "east", "attestation": attestation}).to_string();
        let (code, told) = user.ask(Method::POST, paths::CLUSTERS, &body).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{field}: {told}");
        assert!(told.contains(&format!("attestation.{field}")), "{told}");
    }
    drop(house.ended().await);
}

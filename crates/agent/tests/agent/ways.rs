//! Ways to the server that work, and what is said about those that do not.

use std::{collections::HashMap, time::Duration};

use moorline_agent::RawConfig;
use moorline_ca::{Authority, SubjectName};
use moorline_mtls::{GatewayAcceptor, KeyPair, Roots};
use moorline_testkit::Refusing;
use moorline_wire::Failure;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    bench::{Agent, now, spawn, within},
    hub::{Hub, QUIET, text},
    upstream::Upstream,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the server is to whoever goes through a proxy. Nobody else can resolve it, and nobody has to.
const BEYOND: &str = "hub.invalid:9449";

/// What a proxy does with who asks for [`BEYOND`].
#[derive(Clone, Copy)]
enum Manners {
    /// Opens the way to this port.
    Opens(u16),
    /// Answers this, and hangs up.
    Answers(&'static str),
}

/// A proxy that tells the heads it gets.
async fn proxy(manners: Manners) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::channel(16);
    spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let tell = tell.clone();
            spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                drop(tell.try_send(String::from_utf8(head).unwrap()));
                match manners {
                    Manners::Answers(text) => socket.write_all(text.as_bytes()).await.unwrap(),
                    Manners::Opens(port) => {
                        let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                        drop(copy_bidirectional(&mut socket, &mut server).await);
                    }
                }
            });
        }
    });
    (address, told)
}

fn beyond(hub: &Hub, upstream: &Upstream) -> RawConfig {
    RawConfig { management_cluster_addr: Some(BEYOND.to_owned()), ..hub.raw(&upstream.url()) }
}

fn environment(pairs: &[(&'static str, String)]) -> impl Fn(&str) -> Option<String> + use<> {
    let map: HashMap<_, _> = pairs.iter().cloned().collect();
    move |name| map.get(name).cloned()
}

#[tokio::test]
async fn through_a_proxy_with_a_password() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let (address, mut told) = proxy(Manners::Opens(hub.port())).await;
    let variables = environment(&[("https_proxy", format!("http://user:s3cret@{address}"))]);
    let _agent = Agent::start_with(&beyond(&hub, &upstream), &variables);
    let session = hub.session(QUIET).await;
    assert_eq!(text(session.get("/x").await).await, "fine");
    let head = within(told.recv()).await.unwrap().unwrap();
    assert!(head.starts_with(&format!("CONNECT {BEYOND} HTTP/1.1")), "{head}");
    assert!(head.contains("Basic dXNlcjpzM2NyZXQ="), "{head}");
}

#[tokio::test]
async fn f21_a_proxy_that_refuses_is_named_with_its_status_and_not_its_password() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    let (address, _told) = proxy(Manners::Answers(refusal)).await;
    let variables = environment(&[("HTTPS_PROXY", format!("http://user:s3cret@{address}"))]);
    let agent = Agent::start_with(&beyond(&hub, &upstream), &variables);
    agent.says(&format!("the proxy http://{address} opened no way")).await;
    let page = agent.page("/readyz?verbose").await;
    assert!(page.contains("407") && !page.contains("s3cret"), "{page}");
}

#[tokio::test]
async fn an_exempt_server_and_one_on_this_machine_are_dialled_directly() {
    let (nobody, hub, upstream) = (Refusing::bind().unwrap(), Hub::start().await, Upstream::start().await);
    let proxy = ("HTTPS_PROXY", format!("http://{}", nobody.address()));
    let _agent = Agent::start_with(&hub.raw(&upstream.url()), &environment(std::slice::from_ref(&proxy)));
    hub.session(QUIET).await;

    // Not loopback's by its name, and still here.
    let address = Some(format!("0.0.0.0:{}", hub.port()));
    let raw = RawConfig { management_cluster_addr: address, ..hub.raw(&upstream.url()) };
    let agent = Agent::start_with(&raw, &environment(std::slice::from_ref(&proxy)));
    agent.says(&format!("cannot connect to the proxy http://{}", nobody.address())).await;
    drop(agent);
    let _agent = Agent::start_with(&raw, &environment(&[proxy, ("no_proxy", "0.0.0.0/8".to_owned())]));
    hub.session(QUIET).await;
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_believed() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    hub.install(&Authority::generate("another", now(), DAY).unwrap());
    let agent = Agent::start(&hub.raw(&upstream.url()));
    assert!(within(hub.handshake()).await.unwrap().is_err());
    agent.says("issued by an authority that is not trusted here").await;
}

#[tokio::test]
async fn a_server_that_does_not_believe_the_agent_says_so() {
    let (ours, theirs) = (Authority::generate("a", now(), DAY).unwrap(), Authority::generate("b", now(), DAY).unwrap());
    let (hub, upstream) = (Hub::trusting(&ours, &theirs).await, Upstream::start().await);
    let agent = Agent::start(&hub.raw(&upstream.url()));
    assert!(within(hub.handshake()).await.unwrap().is_err());
    agent.says("our certificate was issued by an authority that it does not trust").await;
}

#[tokio::test]
async fn the_kube_apiserver_over_tls_by_client_certificate_and_name() {
    let authority = Authority::generate("kubernetes", now(), DAY).unwrap();
    let issued = authority.issue_server(&[SubjectName::Dns("kubernetes".to_owned())], now(), DAY).unwrap();
    let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let roots = Roots::from_pem(authority.certificate_pem().as_bytes()).unwrap();
    let upstream = Upstream::start_tls(GatewayAcceptor::new(keys, Some(roots.into())).unwrap()).await;
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(files.path().join(name), text).unwrap();
        files.path().join(name)
    };
    let user = authority.issue_user("agent", &[], now(), DAY).unwrap();
    let hub = Hub::start().await;
    let mut raw = hub.raw(&format!("https://{}", upstream.address));
    raw.kube_ca_file = Some(write("ca.crt", authority.certificate_pem()));
    raw.kube_client_certificate_file = Some(write("agent.crt", &user.certificate_pem));
    raw.kube_client_key_file = Some(write("agent.key", &user.key_pem));
    raw.kube_token_file = None;

    let agent = Agent::start(&raw);
    let response = hub.session(QUIET).await.get("/x").await;
    assert_eq!(Failure::of_response(response.headers()), Some(Failure::UpstreamTls), "not by its address");
    agent.says("TLS with the kube-apiserver").await;
    drop(agent);

    raw.kube_tls_server_name = Some("kubernetes".to_owned());
    let _agent = Agent::start(&raw);
    let session = hub.session(QUIET).await;
    for _ in 0..3 {
        assert_eq!(text(session.get("/x").await).await, "fine");
    }
    assert!(upstream.users().iter().all(|user| user.as_deref() == Some("agent")), "{:?}", upstream.users());
    let head = upstream.heads("/x").remove(0);
    assert!(!head.headers.contains_key("authorization"));
    assert_eq!(head.headers["impersonate-user"], "ann");
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let (hub, upstream) = (Hub::start().await, Upstream::start().await);
    let mut raw = hub.raw(&upstream.url());
    let nobody = Refusing::bind().unwrap();
    raw.management_cluster_addr = Some(nobody.address().to_string());
    let agent = Agent::start(&raw);
    agent.says(&format!("cannot connect to the server at {}", nobody.address())).await;
}

//! The same facts about Calico's Guardian itself, v3.31.0, in front of a real kube-apiserver: so far as the stand-in says
//! what it is like, this is where that is held against it.

use http::{Request, StatusCode};
use http_body_util::Empty;
use moorline_mux::CloseReason;
use moorline_testkit::client::LIMIT;
use moorline_testkit::eventually;
use moorline_testkit::guardian::{Real, Settings, Signal};
use moorline_testkit::kubernetes::{ControlPlane, Options, PodSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::management::{Inner, Management, Session, until_empty_line, upgrade};
use crate::peer::within;

/// A management side, the Guardian, and its cluster.
struct Play {
    guardian: Real,
    session: Session,
    management: Management,
    plane: ControlPlane,
}

impl Play {
    async fn set() -> Option<Self> {
        let tools = Real::possible_or_skip()?;
        let plane =
            ControlPlane::start(&tools, Options { name: "guardian".into(), ..Options::default() }).await.unwrap();
        let management = Management::start().await;
        let account = management.files().join("account");
        std::fs::create_dir(&account).unwrap();
        std::fs::write(account.join("token"), plane.admin_token()).unwrap();
        std::fs::write(account.join("ca.crt"), plane.ca_pem()).unwrap();
        let settings = Settings { account, ..management.settings(&plane.url()) };
        let guardian = Real::start(&tools, &settings).unwrap();
        let session = management.session().await;
        Some(Self { guardian, session, management, plane })
    }
}

/// Asks for a command in a pod over a WebSocket, and gives what comes back until the stream ends.
async fn run(mut stream: Inner, sacrifice: bool) -> (String, Vec<u8>) {
    let path = "/api/v1/namespaces/default/pods/idle/exec?command=echo&command=well-done&stdout=true";
    let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: v4.channel.k8s.io\r\n";
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: cluster\r\n{upgrade}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    if sacrifice {
        stream.write_all(b"\n").await.unwrap();
        stream.flush().await.unwrap();
    }
    let head = until_empty_line(&mut stream).await;
    let mut rest = Vec::new();
    // However it ends: what came before is what counts.
    drop(within(stream.read_to_end(&mut rest)).await);
    (head, rest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_one_is_as_the_stand_in() {
    let Some(mut play) = Play::set().await else { return };
    let mut sender = play.session.http2().await;
    let mut ask = async |path: &str| {
        let request = Request::get(format!("https://cluster{path}")).body(Empty::new()).unwrap();
        within(sender.send_request(request)).await.unwrap()
    };
    assert_eq!(ask("/version").await.status(), StatusCode::NOT_FOUND);
    assert!(ask("/api").await.status().is_redirection());
    let listed = ask("/api/v1/namespaces").await;
    assert_eq!(listed.status(), StatusCode::OK);
    assert!(listed.headers().contains_key("strict-transport-security"));

    let node = play.plane.add_node("node-1").await.unwrap();
    play.plane.add_pod(&node, &PodSpec { namespace: "default".into(), ..PodSpec::idle("idle") }).await.unwrap();
    for sacrifice in [false, true, false, true] {
        let (head, rest) = run(play.session.http1().await, sacrifice).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let arrived = rest.windows(9).any(|part| part == b"well-done");
        assert_eq!(arrived, sacrifice, "{rest:?}");
    }

    // What is no WebSocket is sent on over HTTP/2, which knows no upgrades: no kubectl before 1.30 runs a command.
    let mut spdy = play.session.http1().await;
    let head = upgrade(&mut spdy, "/api/v1/namespaces/default/pods/idle/exec?command=true&stdout=true", true).await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");

    // A polite end, then a plain one: it comes back from both. A reset kills it.
    play.session.handle.close(CloseReason::Local("test"));
    within(play.session.driver).await.unwrap();
    let silent = play.management.session().await;
    assert_eq!(silent.peer, play.session.peer);
    silent.driver.abort();
    drop(silent);
    let stopped = play.management.session().await;
    play.guardian.check().unwrap();
    play.guardian.signal(Signal::Stop).unwrap();
    assert!(stopped.handle.is_open());
    play.guardian.signal(Signal::Continue).unwrap();
    let pinged = stopped.handle.ping();
    within(pinged).await.unwrap();
}

/// What a pod sends to its listener arrives as a raw stream, and both ends are closed when either is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pods_send_arrives() {
    let Some(mut play) = Play::set().await else { return };
    let mut pod = eventually(LIMIT, async || play.guardian.connect().ok()).await.unwrap();
    pod.write_all(b"hello").await.unwrap();
    let mut stream = within(play.session.incoming.accept()).await.unwrap();
    let mut got = [0; 5];
    within(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"hello");
    stream.write_all(b"there").await.unwrap();
    within(pod.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"there");
    // Half-closed by the pod: no answer gets through any more.
    pod.shutdown().await.unwrap();
    assert_eq!(within(stream.read(&mut got)).await.unwrap(), 0);
    stream.write_all(b"later").await.unwrap();
    stream.shutdown().await.unwrap();
    let late = within(pod.read(&mut got)).await;
    assert!(!matches!(late, Ok(5)), "half-close is kept now");
    assert!(play.session.handle.is_open());
}

//! The door itself: sockets, TLS, client certificates, and those who come and say nothing (F32, F33).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use moorline_ca::{Authority, Issued, SubjectName};
use moorline_mtls::{ClientStream, GatewayAcceptor, HttpsConnector, KeyPair, Roots, Source};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    house::House,
    user::{User, body, get, status},
};
use crate::{clock, config::GatewayConfig, front::Gateway};

const LIFE: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(20);

struct Door {
    house: House,
    address: SocketAddr,
    servers: Authority,
    users: Authority,
}

fn keys(issued: &Issued) -> KeyPair {
    KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
}

fn roots(authority: &Authority) -> Roots {
    Roots::from_pem(authority.certificate_pem().as_bytes()).unwrap()
}

impl Door {
    async fn open(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let house = House::with(change);
        let servers = Authority::generate("servers", clock::now(), LIFE).unwrap();
        let users = Authority::generate("users", clock::now(), LIFE).unwrap();
        let names = [SubjectName::Dns("gateway".to_owned())];
        let issued = servers.issue_server(&names, clock::now(), LIFE).unwrap();
        let acceptor = GatewayAcceptor::new(keys(&issued), Some(roots(&users).into())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = Gateway::new(Arc::clone(&house.state), acceptor, axum::Router::new());
        house.tasks.spawn("gateway-door", gateway.serve(listener));
        Self { house, address, servers, users }
    }

    async fn connect(
        &self,
        user: Option<(&Authority, &str)>,
        alpn: &'static [&'static [u8]],
    ) -> Result<ClientStream<TcpStream>, moorline_mtls::HandshakeError> {
        let keys: Option<Source<KeyPair>> = user.map(|(authority, name)| {
            keys(&authority.issue_user(name, &["dev".to_owned()], clock::now(), LIFE).unwrap()).into()
        });
        let connector = HttpsConnector::new(roots(&self.servers), keys, alpn);
        connector.connect(TcpStream::connect(self.address).await.unwrap(), "gateway", SOON).await
    }
}

#[tokio::test]
async fn a_certificate_says_who_asks_and_a_token_beside_it_is_not_looked_at() {
    let mut door = Door::open(|_| {}).await;
    const OFFERS: [&[&[u8]]; 3] = [&[b"h2"], &[b"http/1.1"], &[]];
    for alpn in OFFERS {
        let stream = door.connect(Some((&door.users, "alice")), alpn).await.unwrap();
        let h2 = stream.alpn() == Some(b"h2");
        let tasks = door.house.tasks.clone();
        let mut user = if h2 { User::h2(stream, &tasks).await } else { User::h1(stream, &tasks).await };
        for authorization in [None, Some("Bearer nobody"), Some("Bearer mallory-token")] {
            let mut request = get("/clusters/east/api");
            request.headers_mut().remove("authorization");
            if let Some(authorization) = authorization {
                request.headers_mut().insert("authorization", authorization.parse().unwrap());
            }
            let (response, ()) = tokio::join!(user.send(request), async {
                let arrival = door.house.agent.next().await;
                let identity = moorline_wire::read_identity(arrival.request.headers()).unwrap();
                assert_eq!((identity.user(), identity.is_in("dev")), ("alice", true));
                arrival.ok("hello");
            });
            assert_eq!(body(response.unwrap()).await, "hello");
        }
    }
}

#[tokio::test]
async fn a_certificate_of_somebody_elses_authority_gets_nowhere() {
    let door = Door::open(|_| {}).await;
    let forger = Authority::generate("users", clock::now(), LIFE).unwrap();
    let refused = match door.connect(Some((&forger, "alice")), &[b"http/1.1"]).await {
        // In TLS 1.3 the refusal comes with the first read.
        Ok(mut stream) => stream.read(&mut [0; 1]).await.is_err(),
        Err(_refused) => true,
    };
    assert!(refused);
    let stream = door.connect(None, &[b"http/1.1"]).await.unwrap();
    let mut user = User::h1(stream, &door.house.tasks).await;
    let mut nobody = get("/clusters/east/api");
    nobody.headers_mut().remove("authorization");
    assert_eq!(status(user.send(nobody).await.unwrap()).await["code"], 401);
}

#[tokio::test]
async fn the_silent_and_the_confused_delay_nobody() {
    let mut door = Door::open(|gateway| gateway.max_connections = 64).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(door.address).await.unwrap());
    }
    let mut confused = TcpStream::connect(door.address).await.unwrap();
    confused.write_all(b"GET /clusters/east/api HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut slow = door.connect(None, &[b"http/1.1"]).await.unwrap();
    slow.write_all(b"GET /clusters/ea").await.unwrap();
    let stream = door.connect(None, &[b"h2"]).await.unwrap();
    let mut user = User::h2(stream, &door.house.tasks).await;
    let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async { door.house.agent.next().await.ok("x") });
    assert_eq!(body(response).await, "x");
}

#[tokio::test]
async fn one_address_has_its_share_of_connections() {
    let door = Door::open(|gateway| gateway.max_connections = 8).await;
    let (one, two) = (door.connect(None, &[]).await.unwrap(), door.connect(None, &[]).await.unwrap());
    assert!(door.connect(None, &[]).await.is_err(), "a quarter of eight is two");
    drop((one, two));
    let again = async {
        while door.connect(None, &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, again).await.unwrap();
}

/// 401s, probes and silence: whoever is not known within ten seconds is gone a second later, and makes room before that.
#[tokio::test]
async fn strangers_keep_no_places_from_users() {
    let mut door = Door::open(|gateway| gateway.max_connections = 16).await;
    let mut strangers = Vec::new();
    for path in ["/clusters/east/api", "/readyz", "/v1/clusters", "/"] {
        let stream = door.connect(None, &[b"http/1.1"]).await.unwrap();
        let mut stranger = User::h1(stream, &door.house.tasks).await;
        let mut request = get(path);
        request.headers_mut().insert("authorization", "Bearer nobody".parse().unwrap());
        drop(body(stranger.send(request).await.unwrap()).await);
        strangers.push(stranger);
    }
    let stream = door.connect(None, &[b"http/1.1"]).await;
    assert!(stream.is_err(), "one source has its share, of whatever kind");
    drop(strangers.pop());
    let mut user = tokio::time::timeout(SOON, async {
        loop {
            if let Ok(stream) = door.connect(None, &[b"http/1.1"]).await {
                break User::h1(stream, &door.house.tasks).await;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    for _ in 0..2 {
        let (response, ()) =
            tokio::join!(user.get("/clusters/east/api"), async { door.house.agent.next().await.ok("x") });
        assert_eq!(body(response).await, "x");
    }
    for stranger in strangers {
        let User::H1(mut sender) = stranger else { unreachable!() };
        let gone = async {
            while sender.ready().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(3 * SOON, gone).await.expect("an unknown one is hung up on");
    }
    let (response, ()) = tokio::join!(user.get("/clusters/east/api"), async { door.house.agent.next().await.ok("y") });
    assert_eq!(body(response).await, "y", "a known one stays");
}

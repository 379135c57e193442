//! The other way round: programs beside a Guardian reach services of the management cluster by the server name of their
//! TLS, through Go's yamux and Guardian's way of ending connections.
#![expect(clippy::disallowed_methods, reason = "services and programs of a test end with it")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use moorline_ca::{Authority, SubjectName};
use moorline_mtls::{ClientStream, GatewayAcceptor, HandshakeError, HttpsConnector, KeyPair, Roots};
use moorline_testkit::client::LIMIT;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::house::{Guardian, House};
use crate::peer::{pattern, within};

const HOUR: Duration = Duration::from_secs(3600);

/// A certificate for two services, and whoever believes in it.
struct Names {
    keys: KeyPair,
    roots: Roots,
}

impl Names {
    /// Makes one, with its files beside the table.
    fn new(dir: &Path) -> Self {
        let now = std::time::SystemTime::now().into();
        let authority = Authority::generate("services", now, HOUR).unwrap();
        let names = ["logs.test", "web.test"].map(|name| SubjectName::Dns(name.to_owned()));
        let issued = authority.issue_server(&names, now, HOUR).unwrap();
        std::fs::write(dir.join("tls.crt"), &issued.certificate_pem).unwrap();
        std::fs::write(dir.join("tls.key"), issued.key_pem.as_bytes()).unwrap();
        let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        Self { keys, roots: Roots::from_pem(authority.certificate_pem().as_bytes()).unwrap() }
    }

    /// TLS of a program in the cluster, through the Guardian's listener.
    async fn program(
        &self,
        guardian: &Guardian,
        name: &str,
        alpn: &'static [&'static [u8]],
    ) -> Result<ClientStream<TcpStream>, HandshakeError> {
        let socket = TcpStream::connect(guardian.stand_in.listener()).await.unwrap();
        HttpsConnector::new(self.roots.clone(), None, alpn).connect(socket, name, LIMIT).await
    }
}

/// A service with TLS of its own that gives back what it gets.
async fn echo(keys: &KeyPair) -> SocketAddr {
    let acceptor = GatewayAcceptor::new(keys.clone(), None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok((tls, _)) = acceptor.accept(socket, LIMIT).await else { return };
                let (mut read, mut write) = tokio::io::split(tls);
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    address
}

/// A service without TLS that answers with the headers that it got.
async fn web() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service_fn(async |request: Request<Incoming>| {
                let head = format!("{} {:?}", request.uri(), request.headers());
                let body = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{head} {body}")))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

/// A house with both services for `east`, and one for another cluster.
async fn house() -> (House, Names, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let names = Names::new(dir.path());
    let (logs, web) = (echo(&names.keys).await, web().await);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let table = format!(
        "apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\nservices:\n- {{name: logs, serverNames: [logs.test], \
         clusters: [east], upstream: '{logs}', mode: PassThrough}}\n- {{name: web, serverNames: [web.test], clusters: \
         [east], upstream: '{web}', mode: HTTP, tls: {{certificateFile: {}, privateKeyFile: {}}}}}\n- {{name: others, \
         serverNames: [others.test], clusters: [west], upstream: '{logs}', mode: PassThrough}}\n",
        file("tls.crt"),
        file("tls.key")
    );
    let services = dir.path().join("services.yaml");
    std::fs::write(&services, table).unwrap();
    let house = House::patient(|raw| raw.services_file = Some(services)).await;
    (house, names, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_name_passes_and_others_are_refused_and_counted() {
    let (house, names, _dir) = house().await;
    let Some(guardian) = house.guardian("east", |_| {}).await else { return };
    let sent = pattern(8 << 20);
    let (mut read, mut write) = tokio::io::split(names.program(&guardian, "logs.test", &[]).await.unwrap());
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.flush().await.unwrap();
    };
    let mut back = vec![0; sent.len()];
    let ((), read) = tokio::join!(writing, within(read.read_exact(&mut back)));
    read.unwrap();
    assert!(back == sent, "every byte, both ways");
    for (name, reason) in [("none.test", "unknown-name"), ("others.test", "forbidden"), ("127.0.0.1", "no-name")] {
        names.program(&guardian, name, &[]).await.unwrap_err();
        let label = format!("reason=\"{reason}\"");
        house.metric_is("moorline_service_refused_total", &[&label], |value| value == 1.0).await;
    }
    let mut plain = TcpStream::connect(guardian.stand_in.listener()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: logs.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Guardian resets or closes; an answer there is none.
    drop(within(plain.read_to_end(&mut answer)).await);
    assert!(answer.is_empty(), "{answer:?}");
    house.metric_is("moorline_service_refused_total", &["reason=\"not-tls\""], |value| value == 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_route_carries_the_clusters_name_and_no_other() {
    let (house, names, _dir) = house().await;
    let Some(guardian) = house.guardian("east", |_| {}).await else { return };
    let request = |version: http::Version| {
        Request::post(if version == http::Version::HTTP_2 { "https://web.test/_bulk" } else { "/_bulk" })
            .version(version)
            .header("x-cluster-id", "west")
            .header("x_cluster_id", "west")
            .header("host", "web.test")
            .body(Full::new(Bytes::from(pattern(1 << 20))))
            .unwrap()
    };
    let is_right = async |response: Response<Incoming>| {
        let text = within(response.into_body().collect()).await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains("\"x-cluster-id\": \"east\"") && !text.contains("west"), "{text}");
        assert!(text.starts_with("/_bulk") && text.ends_with(" 1048576"), "{text}");
    };
    let tls = names.program(&guardian, "web.test", &[b"http/1.1"]).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        is_right(within(sender.send_request(request(http::Version::HTTP_11))).await.unwrap()).await;
    }
    let tls = names.program(&guardian, "web.test", &[b"h2"]).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        is_right(within(sender.send_request(request(http::Version::HTTP_2))).await.unwrap()).await;
    }
}

/// Programs that send nonsense by the thousand take nothing from those that do not, nor from users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once_cost_themselves() {
    let (house, names, _dir) = house().await;
    let Some(mut guardian) = house.guardian("east", |_| {}).await else { return };
    let ends = guardian.stand_in.command("open 1000 hello").await.unwrap();
    assert!(!ends.contains("session") && !ends.contains("answered"), "{ends}");
    house.metric_is("moorline_service_refused_total", &["reason=\"not-tls\""], |value| value > 0.0).await;
    // Log agents that come back all at once after an outage.
    let mut programs = JoinSet::new();
    for _ in 0..100 {
        let (listener, roots) = (guardian.stand_in.listener(), names.roots.clone());
        programs.spawn(async move {
            let socket = TcpStream::connect(listener).await.unwrap();
            let connector = HttpsConnector::new(roots, None, &[]);
            let mut tls = connector.connect(socket, "logs.test", LIMIT).await.unwrap();
            tls.write_all(b"well?").await.unwrap();
            tls.flush().await.unwrap();
            let mut back = [0; 5];
            within(tls.read_exact(&mut back)).await.unwrap();
            back
        });
    }
    assert!(programs.join_all().await.iter().all(|back| back == b"well?"));
    assert!(house.user.get("/clusters/east/api/v1").await.unwrap().code.is_success());
    house.metric_is("moorline_service_streams", &[], |value| value == 0.0).await;
    assert_eq!(house.server.metric("moorline_tunnel_sessions_welcomed_total", &[]).await.unwrap(), 1.0);
}

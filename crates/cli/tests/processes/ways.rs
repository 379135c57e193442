//! Ways to the server that fail and are repaired: proxies, middleboxes, names whose addresses change. An agent finds
//! every one of them open again by itself.

use std::{net::SocketAddr, path::Path, process::Command, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use moorline_ca::{Authority, SubjectName};
use moorline_mtls::{GatewayAcceptor, KeyPair};
use moorline_testkit::upstream::Upstream;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    house::{Agent, RARE, Server, until},
    namespace::possible,
};

/// Where the server is to whoever goes through a proxy. Nobody else can resolve it, and nobody has to.
const BEYOND: &str = "hub.invalid:9449";

const HOUR: Duration = Duration::from_secs(3600);

/// What is in the way.
#[derive(Clone)]
enum Manners {
    /// A proxy that takes the request and says nothing.
    Silent,
    /// A proxy that answers this.
    Answers(&'static str),
    /// A proxy that passes on what it has once in a while only.
    Gathers(Duration),
    /// A middlebox that opens TLS, with a certificate that the agent believes, and knows no ALPN of ours.
    OpensTls(Arc<GatewayAcceptor>),
    /// Nothing.
    Passes,
}

/// Something between agent and server; its manners may change.
struct Middle {
    address: SocketAddr,
    manners: watch::Sender<Manners>,
    _tasks: JoinSet<()>,
}

impl Middle {
    async fn new(server: SocketAddr, first: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let manners = watch::Sender::new(first);
        let now = manners.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let now = now.borrow().clone();
                connections.spawn(carry(socket, server, now));
            }
        });
        Self { address, manners, _tasks: tasks }
    }

    fn turn(&self, manners: Manners) {
        self.manners.send_replace(manners);
    }
}

async fn carry(mut socket: TcpStream, server: SocketAddr, manners: Manners) {
    match manners {
        Manners::OpensTls(acceptor) => drop(acceptor.accept(socket, HOUR).await),
        Manners::Passes => {
            let mut far = TcpStream::connect(server).await.unwrap();
            drop(copy_bidirectional(&mut socket, &mut far).await);
        }
        Manners::Silent => {
            connect_head(&mut socket).await;
            // Until the agent hangs up.
            drop(socket.read_u8().await);
        }
        Manners::Answers(text) => {
            connect_head(&mut socket).await;
            drop(socket.write_all(text.as_bytes()).await);
        }
        Manners::Gathers(pause) => {
            assert_eq!(connect_head(&mut socket).await, BEYOND);
            let far = TcpStream::connect(server).await.unwrap();
            drop(socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
            let ((near_read, near_write), (far_read, far_write)) = (socket.into_split(), far.into_split());
            tokio::join!(gather(near_read, far_write, pause), gather(far_read, near_write, pause));
        }
    }
}

/// Reads the head of a CONNECT request; gives what it asks for.
async fn connect_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned()
}

async fn gather(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, pause: Duration) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(first) = from.read(&mut buffer).await {
        let mut have = first;
        let deadline = tokio::time::Instant::now() + pause;
        while have > 0 && have < buffer.len() {
            match tokio::time::timeout_at(deadline, from.read(&mut buffer[have..])).await {
                Ok(Ok(more)) if more > 0 => have += more,
                _ended_or_time => break,
            }
        }
        if have == 0 || to.write_all(&buffer[..have]).await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
}

#[tokio::test]
async fn f21_a_proxy_that_is_silent_refuses_or_buffers_is_named_and_lived_with() {
    let server = Server::start_in(tempfile::tempdir().unwrap(), &RARE).await;
    let upstream = Upstream::start().await.unwrap();
    let proxy = Middle::new(server.tunnel, Manners::Silent).await;
    let variable = format!("http://user:the-secret-of-the-proxy@{}", proxy.address);
    let agent = Agent::start_with(&server.create("east").await, BEYOND, &upstream, |mut command| {
        command.env("HTTPS_PROXY", variable);
        command
    })
    .await;
    agent.program.says(&["no session with the server", "did not answer the CONNECT request", "HTTPS_PROXY"]).await;
    proxy.turn(Manners::Answers("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"));
    agent.program.says(&["no session with the server", "407", "user:password@host:port"]).await;
    proxy.turn(Manners::Gathers(Duration::from_millis(100)));
    server.connected("east").await;

    let user = server.user();
    let whole = user.send(user.request(Method::GET, "/clusters/east/bytes/4194304")).await.unwrap();
    assert_eq!(whole.into_body().collect().await.unwrap().to_bytes().len(), 4 << 20);
    let mut watch = user.send(user.request(Method::GET, "/clusters/east/ticks?watch=true")).await.unwrap().into_body();
    // As many events as take more beats than a silent session lives.
    for _ in 0..360 {
        assert!(watch.frame().await.unwrap().is_ok());
    }
    assert_eq!(server.metric("moorline_tunnel_sessions_welcomed_total").await, 1.0, "it lost no session over it");
    assert!(agent.program.said(&["the-secret-of-the-proxy"]).is_empty());
}

#[tokio::test]
async fn f22_a_middlebox_that_strips_alpn_is_not_remembered_once_it_is_gone() {
    let (server, upstream) = (Server::start().await, Upstream::start().await.unwrap());
    let file = |name: &str| std::fs::read_to_string(server.directory.path().join(name)).unwrap();
    let authority = Authority::from_pem(&file("tunnel-ca.crt"), &file("tunnel-ca.key")).unwrap();
    let names = [SubjectName::Dns("moorline-tunnel".to_owned())];
    let issued = authority.issue_server(&names, std::time::SystemTime::now().into(), HOUR).unwrap();
    let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let acceptor = Arc::new(GatewayAcceptor::new(keys, None).unwrap());
    let middle = Middle::new(server.tunnel, Manners::OpensTls(acceptor)).await;
    let agent = Agent::start(&server.create("east").await, middle.address, &upstream).await;
    agent.program.says(&["no session with the server", "ALPN", "middlebox opens TLS"]).await;
    middle.turn(Manners::Passes);
    server.connected("east").await;
}

/// The agent's name for the server, in a file of hosts that only it sees.
const NAME: &str = "hub.moorline.test";

/// The same command, seeing `hosts` as `/etc/hosts`.
fn with_hosts(unshare: &[&str], hosts: &Path, command: &Command) -> Command {
    let mut seeing = Command::new("/usr/bin/env");
    seeing.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").arg("unshare").args(unshare);
    seeing.args(["sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
    seeing.arg(command.get_program()).args(command.get_args());
    seeing
}

#[tokio::test]
async fn f23_a_name_is_resolved_anew_at_each_dial_and_each_of_its_addresses_is_tried() {
    let test = "f23_a_name_is_resolved_anew_at_each_dial_and_each_of_its_addresses_is_tried";
    let Some(unshare) = possible(test, "--mount", "mount --bind /etc/hosts /etc/hosts") else { return };
    let upstream = Upstream::start().await.unwrap();
    // Of its own: no other test takes the ports while nobody listens there.
    let server = Server::start_in(
        tempfile::tempdir().unwrap(),
        &["--tunnel-listen", "127.1.0.7:0", "--gateway-listen", "127.1.0.7:0"],
    )
    .await;
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let names = |addresses: &[&str]| {
        let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
        std::fs::write(hosts.path(), lines).unwrap();
    };
    // Nobody listens at the first.
    names(&["127.1.0.9", "127.1.0.7"]);
    let port = server.tunnel.port();
    let created = server.create("east").await;
    let agent = Agent::start_with(&created, format!("{NAME}:{port}"), &upstream, |command| {
        with_hosts(&unshare, hosts.path(), &command)
    })
    .await;
    server.connected("east").await;

    // The server moves; for a while nobody is where the name leads.
    let gateway = server.gateway.to_string();
    server.program.signal("KILL");
    let Server { program, directory, .. } = server;
    drop(program);
    agent.program.says(&["no session with the server", "127.1.0.7"]).await;
    let there = format!("127.1.0.8:{port}");
    let server = Server::start_in(directory, &["--tunnel-listen", &there, "--gateway-listen", &gateway]).await;
    assert_eq!(server.user().get("/clusters/east/api").await.unwrap().code, StatusCode::SERVICE_UNAVAILABLE);
    names(&["127.1.0.8"]);
    until("it finds the new address", async || server.metric("moorline_tunnel_sessions").await == 1.0).await;
    server.connected("east").await;
}

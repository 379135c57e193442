//! The multiplexer alone: bytes and streams a second, against TLS with nothing in it and against HTTP/2 over TLS.
//!
//! Both ends share one process and its cores. Bytes go up in pieces of 64 KiB, over one stream and over 32 (for bare TLS:
//! over as many connections). Exchanges are 1 KiB each way, each on a stream of its own; bare TLS cannot do that and
//! exchanges on kept connections, which makes its figure the price of the bytes alone. Each figure is the median of
//! interleaved rounds. Run it with `cargo bench --package moorline-benches --bench multiplexer`.

mod parts;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use moorline_ca::{Authority, SubjectName};
use moorline_model::Timestamp;
use moorline_mtls::{ClientStream, GatewayAcceptor, HttpsConnector, KeyPair, Roots, ServerStream};
use moorline_mux::{Config, Handle, Role};
use moorline_testkit::client::{Body, LIMIT, full};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use parts::{median, say};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
const PIECE: usize = 64 * 1024;
const BULK: usize = 512 * 1024 * 1024;
const SMALL: usize = 1024;

/// What a stream begins with: bytes until its end, or exchanges until its end.
const SINK: u8 = b's';
const ECHO: u8 = b'e';

/// What HTTP/2 may have on its way for a stream and for the connection: more than a loopback ever needs.
const H2_WINDOWS: (u32, u32) = (4 << 20, 32 << 20);

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Tls,
    Mux,
    Http2,
}

const WAYS: [Way; 3] = [Way::Tls, Way::Mux, Way::Http2];

/// Ends to talk to, one for each way.
struct House {
    addresses: [SocketAddr; 3],
    connector: HttpsConnector,
}

/// A connection that streams are made of.
#[derive(Clone)]
enum Carrier {
    Tls(SocketAddr, HttpsConnector),
    Mux(Handle),
    Http2(SendRequest<Body>),
}

#[tokio::main]
async fn main() -> Result<()> {
    let house = House::new().await?;
    for streams in [1, 32] {
        say(&format!("MiB a second up, {streams} at once"));
        table(|way| house.bulk(way, streams)).await?;
    }
    for callers in [1, 32] {
        say(&format!("exchanges of 1 KiB a second, {callers} at once"));
        table(|way| house.exchanges(way, callers)).await?;
    }
    Ok(())
}

/// Rounds of all ways, taken in turns so that all see the same machine.
async fn table<F: Future<Output = Result<f64>>>(measure: impl Fn(Way) -> F) -> Result<()> {
    let mut rounds = WAYS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (way, figures) in WAYS.into_iter().zip(&mut rounds) {
            figures.push(measure(way).await?);
        }
    }
    let [tls, mux, http2] = rounds.map(median);
    say(&format!("    TLS {tls:.0}, multiplexer {mux:.0}, HTTP/2 {http2:.0}"));
    say(&format!("    multiplexer to TLS {:.2}, to HTTP/2 {:.2}", mux / tls, mux / http2));
    Ok(())
}

impl House {
    async fn new() -> Result<Self> {
        let now = Timestamp::from(SystemTime::now());
        let life = Duration::from_secs(3600);
        let authority = Authority::generate("bench", now, life)?;
        let issued = authority.issue_server(&[SubjectName::from_host("localhost")], now, life)?;
        let keys = KeyPair::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())?;
        let acceptor = GatewayAcceptor::new(keys, None)?;
        let mut addresses = Vec::new();
        for way in WAYS {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push(listener.local_addr()?);
            spawn(accept(listener, acceptor.clone(), way));
        }
        let roots = Roots::from_pem(authority.certificate_pem().as_bytes())?;
        let connector = HttpsConnector::new(roots, None, &[b"h2"]);
        let addresses = addresses.try_into().ok().context("an address for each way")?;
        Ok(Self { addresses, connector })
    }

    async fn carrier(&self, way: Way) -> Result<Carrier> {
        let address = self.addresses[way as usize];
        Ok(match way {
            Way::Tls => Carrier::Tls(address, self.connector.clone()),
            Way::Mux => {
                let io = connect(address, &self.connector).await?;
                let (handle, _incoming, driver) = moorline_mux::session(io, Config::new(Role::Client));
                spawn(async move { drop(driver.await) });
                Carrier::Mux(handle)
            }
            Way::Http2 => {
                let io = TokioIo::new(connect(address, &self.connector).await?);
                let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
                spawn(async move { drop(connection.await) });
                Carrier::Http2(sender)
            }
        })
    }

    /// MiB a second over so many streams at once.
    async fn bulk(&self, way: Way, streams: usize) -> Result<f64> {
        let carrier = self.carrier(way).await?;
        let pieces = BULK / PIECE / streams;
        let mut running = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..streams {
            let carrier = carrier.clone();
            running.spawn(async move {
                match carrier {
                    Carrier::Tls(address, connector) => send(connect(address, &connector).await?, pieces).await,
                    Carrier::Mux(handle) => send(handle.open().await?, pieces).await,
                    Carrier::Http2(mut sender) => {
                        let piece = Bytes::from(vec![1; PIECE]);
                        let frames = (0..pieces).map(move |_| Ok(Frame::data(piece.clone())));
                        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
                        let response = sender.send_request(request("/sink", body)).await?;
                        response.into_body().collect().await?;
                        Ok(())
                    }
                }
            });
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok((pieces * streams * PIECE) as f64 / parts::MIB as f64 / begun.elapsed().as_secs_f64())
    }

    /// Exchanges a second by so many callers.
    async fn exchanges(&self, way: Way, callers: usize) -> Result<f64> {
        let carrier = self.carrier(way).await?;
        let mut running = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..callers {
            let carrier = carrier.clone();
            running.spawn(async move {
                let mut done = 0_u64;
                let mut kept = match &carrier {
                    Carrier::Tls(address, connector) => Some(opened(connect(*address, connector).await?).await?),
                    Carrier::Mux(_) | Carrier::Http2(_) => None,
                };
                while begun.elapsed() < ROUND {
                    match &carrier {
                        Carrier::Tls(..) => exchange(kept.as_mut().context("a connection")?).await?,
                        Carrier::Mux(handle) => {
                            let (mut stream, mut bytes) = (handle.open().await?, [ECHO; 1 + SMALL]);
                            stream.write_all(&bytes).await?;
                            stream.shutdown().await?;
                            stream.read_exact(&mut bytes[1..]).await?;
                            ensure!(stream.read(&mut [0]).await? == 0, "more than was asked for");
                        }
                        Carrier::Http2(sender) => {
                            let body = full(vec![1; SMALL]);
                            let response = sender.clone().send_request(request("/echo", body)).await?;
                            ensure!(response.into_body().collect().await?.to_bytes().len() == SMALL, "too little");
                        }
                    }
                    done += 1;
                }
                anyhow::Ok(done)
            });
        }
        let mut done = 0;
        while let Some(one) = running.join_next().await {
            done += one??;
        }
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }
}

async fn connect(address: SocketAddr, connector: &HttpsConnector) -> Result<ClientStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(connector.connect(socket, "localhost", LIMIT).await?)
}

fn request(path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("https://localhost{path}").parse().unwrap_or_default();
    request
}

async fn send(mut io: impl AsyncRead + AsyncWrite + Unpin, pieces: usize) -> Result<()> {
    io.write_u8(SINK).await?;
    let piece = vec![1; PIECE];
    for _ in 0..pieces {
        io.write_all(&piece).await?;
    }
    io.shutdown().await?;
    io.read_u8().await?;
    Ok(())
}

async fn opened<IO: AsyncWrite + Unpin>(mut io: IO) -> Result<IO> {
    io.write_u8(ECHO).await?;
    Ok(io)
}

async fn exchange(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    let mut bytes = [1; SMALL];
    io.write_all(&bytes).await?;
    io.flush().await?;
    io.read_exact(&mut bytes).await?;
    Ok(())
}

async fn accept(listener: TcpListener, acceptor: GatewayAcceptor, way: Way) {
    while let Ok((socket, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        spawn(async move {
            if socket.set_nodelay(true).is_ok()
                && let Ok((stream, _)) = acceptor.accept(socket, LIMIT).await
            {
                serve(stream, way).await;
            }
        });
    }
}

async fn serve(stream: ServerStream<TcpStream>, way: Way) {
    match way {
        // Whoever has measured enough hangs up.
        Way::Tls => drop(answer(stream).await),
        Way::Mux => {
            let (_handle, mut incoming, driver) = moorline_mux::session(stream, Config::new(Role::Server));
            spawn(async move { drop(driver.await) });
            while let Some(stream) = incoming.accept().await {
                spawn(async move { drop(answer(stream).await) });
            }
        }
        Way::Http2 => {
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(H2_WINDOWS.0)
                .initial_connection_window_size(H2_WINDOWS.1)
                .serve_connection(TokioIo::new(stream), service_fn(answer_request));
            drop(serving.await);
        }
    }
}

async fn answer(mut io: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    if io.read_u8().await? == SINK {
        let mut piece = vec![0; PIECE];
        while io.read(&mut piece).await? > 0 {}
        io.write_u8(SINK).await?;
    } else {
        let mut bytes = [0; SMALL];
        while io.read_exact(&mut bytes).await.is_ok() {
            io.write_all(&bytes).await?;
            io.flush().await?;
        }
    }
    io.shutdown().await?;
    Ok(())
}

async fn answer_request(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let echo = request.uri().path() == "/echo";
    let mut body = request.into_body();
    let mut came = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && echo
        {
            came.extend_from_slice(&data);
        }
    }
    Ok(Response::new(full(came)))
}

#[expect(clippy::disallowed_methods, reason = "both ends are this bench's own")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

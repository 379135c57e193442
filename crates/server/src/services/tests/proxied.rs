//! HTTP to services: what goes across, at whose pace, and what does not.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use moorline_model::{Reason, Status};
use moorline_mux::Stream;
use moorline_testkit::Refusing;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    named::ask,
    rig::{LIMIT, Rig, accept, listen, rest},
};

fn http(address: SocketAddr) -> String {
    format!(
        "- {{name: web, serverNames: [logs.test], clusters: [east], upstream: '{address}', mode: HTTP, tls: \
         {{certificateFile: CERT, privateKeyFile: KEY}}}}\n"
    )
}

/// A service that answers each request with its head, its body and how many connections there were.
async fn mirror() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((socket, _)) = listener.accept().await {
            connections += 1;
            let service = service_fn(move |request: Request<Incoming>| async move {
                let head = format!("{connections} {} {} {:?}\n", request.method(), request.uri(), request.headers());
                let body = request.into_body().collect().await.unwrap();
                let trailers = body.trailers().map(|trailers| format!("{trailers:?}")).unwrap_or_default();
                let all = [head.as_bytes(), &body.to_bytes(), trailers.as_bytes()].concat();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(all))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

/// The stream of a program that came through our own agent.
async fn stream(rig: &Rig) -> Stream {
    let (code, head, stream) = ask(rig, "web").await;
    assert_eq!(code, 101, "{head}");
    stream
}

async fn h1(rig: &Rig) -> http1::SendRequest<Full<Bytes>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream(rig).await)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "web").body(Full::default()).unwrap()
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = tokio::time::timeout(LIMIT, response.into_body().collect()).await.expect("a body").unwrap();
    (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

/// Says something in HTTP by hand, and a last request behind it, and reads until the connection is done with.
async fn said(rig: &Rig, words: &str) -> String {
    let mut stream = stream(rig).await;
    let last = "GET /last HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n";
    // What makes no sense is hung up on, and the rest is nobody's.
    drop(stream.write_all([words, last].concat().as_bytes()).await);
    let mut all = Vec::new();
    // It may be cut behind an answer, which is there all the same.
    drop(tokio::time::timeout(LIMIT, stream.read_to_end(&mut all)).await.expect("an end"));
    String::from_utf8(all).unwrap()
}

async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(LIMIT, socket.read_u8()).await.expect("a head").unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn requests_go_on_and_are_written_down_one_by_one() {
    let mut rig = Rig::new(&http(mirror().await));
    let mut sender = h1(&rig).await;
    for number in 1..=3 {
        let request = Request::post(format!("/push/{number}?token=secret"))
            .header("host", "web")
            .header("authorization", "Bearer mine")
            .body(Full::new(Bytes::from_static(b"a sample")))
            .unwrap();
        let (status, answer) = text(sender.send_request(request).await.unwrap()).await;
        assert_eq!(status, 200);
        assert!(answer.starts_with(&format!("1 POST /push/{number}?token=secret ")), "one connection: {answer}");
        assert!(answer.contains("\"x-cluster-id\": \"east\"") && answer.ends_with("a sample"), "{answer}");
    }
    drop(sender);
    rig.metric_is("moorline_service_streams", 0).await;
    assert_eq!(rig.metric("moorline_service_requests_total{class=\"2xx\"}"), 3);
    let events = rig.book.events();
    assert_eq!(events.len(), 3, "{events:#?}");
    let last = &events[2];
    assert_eq!((&last["verb"], &last["responseStatus"]["code"]), (&"post".into(), &200.into()));
    assert_eq!(
        (&last["objectRef"]["name"], &last["annotations"]["moorline.io/bytes-received"]),
        (&"web".into(), &"8".into())
    );
    assert!(!last.to_string().contains("secret") && !last.to_string().contains("mine"), "{last}");
}

#[tokio::test]
async fn requests_of_a_session_are_paced() {
    let rig = Rig::with(&http(mirror().await), |settings| settings.services.rate = 1);
    let mut sender = h1(&rig).await;
    // Two at once, of which the stream was one, and another each second: a slow machine lets some more through.
    for asked in 0.. {
        let (status, answer) = text(sender.send_request(get("/")).await.unwrap()).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            assert!(asked > 0 && answer.contains("TooManyRequests"), "{asked}: {answer}");
            break;
        }
        assert!(status == StatusCode::OK && asked < 50, "{asked}: {status}");
    }
}

#[tokio::test]
async fn http2_of_a_program_becomes_requests_of_their_own() {
    let rig = Rig::new(&http(mirror().await));
    let tls = rig.tls("logs.test", &[b"h2"]).await.unwrap();
    assert_eq!(tls.alpn(), Some(&b"h2"[..]));
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let each = (0..20).map(|number| {
        let mut sender = sender.clone();
        async move {
            let request = Request::post(format!("https://admin.internal/{number}"))
                .header("x-cluster-id", "west")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(Full::new(Bytes::from(vec![b'x'; 100_000])))
                .unwrap();
            text(sender.send_request(request).await.unwrap()).await
        }
    });
    for (number, (status, answer)) in futures_util::future::join_all(each).await.into_iter().enumerate() {
        assert_eq!(status, 200);
        let (head, body) = answer.split_once('\n').unwrap();
        assert!(head.contains(&format!(" POST /{number} ")) && body.len() == 100_000, "{head}");
        assert!(head.contains("\"x-cluster-id\": \"east\"") && !head.contains("west"), "{head}");
        assert!(head.contains("\"cookie\": \"a=1; b=2\"") && !head.contains("admin.internal"), "{head}");
    }
}

#[tokio::test]
async fn trailers_are_headers_that_nobody_looked_at_and_stay_here() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&http(address));
    let mut stream = stream(&rig).await;
    let words = "POST /x HTTP/1.1\r\nhost: web\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-cluster-id\r\n\r\n3\r\nabc\r\n\
                 0\r\nx-cluster-id: west\r\n\r\n";
    stream.write_all(words.as_bytes()).await.unwrap();
    let mut socket = accept(&listener).await;
    let mut all = head(&mut socket).await;
    while !all.ends_with("\r\n0\r\n\r\n") {
        all.push(char::from(tokio::time::timeout(LIMIT, socket.read_u8()).await.expect("the end").unwrap()));
    }
    let all = all.to_ascii_lowercase();
    assert_eq!(all.matches("x-cluster-id").count(), 1, "{all}");
    assert!(all.contains("x-cluster-id: east\r\n") && all.contains("abc") && !all.contains("trailer"), "{all}");
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-inner\r\nx-inner: 1\r\nx-moorline-failure: \
                  x\r\nwww-authenticate: Basic\r\n\r\n2\r\nok\r\n0\r\nx-after: 1\r\n\r\n";
    socket.write_all(answer.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an end"));
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    assert!(answer.contains("ok") && answer.contains("www-authenticate: basic"), "{answer}");
    for gone in ["x-inner", "x-moorline-failure", "x-after"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
}

/// Nothing of what a program says reaches the service as a second request.
#[tokio::test]
async fn f31_one_request_cannot_be_taken_for_two() {
    let rig = Rig::new(&http(mirror().await));
    let hidden = "GET /hidden HTTP/1.1\r\nx-cluster-id: west\r\nhost: h\r\n\r\n";
    let length = hidden.len();
    for words in [
        format!(
            "POST / HTTP/1.1\r\nhost: w\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("POST / HTTP/1.1\r\nhost: w\r\ncontent-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.1\r\nhost: w\r\ncontent-length: 0\r\ntransfer-encoding: \x0bchunked\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!(
            "POST / HTTP/1.1\r\nhost: w\r\ncontent_length: 0\r\ntransfer_encoding: chunked\r\ncontent-length: {length}\r\n\r\n{hidden}"
        ),
        format!("GET / HTTP/1.1\r\nhost: w\r\nx: a\nx-cluster-id: west\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\r\nhost: w\r\nx: a\rx-cluster-id: west\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\r\nhost: w\r\nx-cluster-id : west\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\r\nhost: w\r\nx: a\r\n x-cluster-id: west\r\n\r\n{hidden}"),
        format!("GET /%0d%0ax-cluster-id:%20west HTTP/1.1\r\nhost: w\r\n\r\n{hidden}"),
        format!("GET /\u{e9} HTTP/1.1\r\nhost: w\r\n\r\n{hidden}"),
        format!("GET http://admin.internal:1/ HTTP/1.1\r\nhost: w\r\n\r\n{hidden}"),
    ] {
        let answers = said(&rig, &words).await;
        assert!(answers.starts_with("HTTP/1.1 "), "{words:?}\n{answers}");
        // A second request may be one in its own right, and then it is cleaned like any other.
        assert!(
            !answers.contains("\"x-cluster-id\": \"west\"") && !answers.contains("admin.internal"),
            "{words:?}\n{answers}"
        );
        let marked = answers.matches("x-cluster-id\": \"east\"").count();
        assert_eq!(marked, answers.matches("\"host\"").count(), "{words:?}\n{answers}");
    }
    let odd = said(&rig, "CONNECT admin.internal:1 HTTP/1.1\r\nhost: admin.internal:1\r\n\r\n").await;
    assert!(odd.starts_with("HTTP/1.1 400"), "{odd}");
}

#[tokio::test]
async fn upgrades_are_refused_in_so_many_words_and_offers_of_http2_left_alone() {
    let rig = Rig::new(&http(mirror().await));
    let mut sender = h1(&rig).await;
    let asks = |protocol: &str| {
        let request = Request::get("/").header("host", "w").header("connection", "upgrade").header("upgrade", protocol);
        request.header("sec-websocket-key", "x").body(Full::default()).unwrap()
    };
    for protocol in ["websocket", "h2c, websocket", "SPDY/3.1", "TLS/1.0"] {
        let (status, answer) = text(sender.send_request(asks(protocol)).await.unwrap()).await;
        assert_eq!(status, 501, "{protocol}");
        let told: Status = serde_json::from_str(&answer).unwrap();
        assert!(told.message.contains("PassThrough"), "{answer}");
    }
    let (status, answer) = text(sender.send_request(asks("h2c")).await.unwrap()).await;
    assert!(status == 200 && !answer.contains("upgrade"), "{answer}");
    assert_eq!(rig.metric("moorline_service_refused_total{reason=\"upgrade\"}"), 4);
}

#[tokio::test]
async fn a_service_that_switches_unasked_is_not_followed() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&http(address));
    let mut sender = h1(&rig).await;
    let serving = tokio::spawn(async move {
        let mut socket = accept(&listener).await;
        head(&mut socket).await;
        socket
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
            .await
            .unwrap();
        drop(rest(&mut socket).await);
    });
    let (status, _) = text(sender.send_request(get("/")).await.unwrap()).await;
    assert_eq!(status, 502);
    serving.await.unwrap();
}

#[tokio::test]
async fn dead_and_silent_services_are_told_and_cost_nothing_else() {
    let nobody = Refusing::bind().unwrap();
    let dead = nobody.address();
    let (silent, silent_address) = listen().await;
    let answering = mirror().await;
    let entry =
        |name: &str, address| format!("- {{name: {name}, clusters: ['*'], upstream: '{address}', mode: HTTP}}\n");
    let table = [entry("web", dead), entry("silent", silent_address), entry("well", answering)].concat();
    let mut rig = Rig::with(&table, |settings| settings.gateway.response_timeout = Duration::from_millis(400));
    let (status, answer) = text(h1(&rig).await.send_request(get("/")).await.unwrap()).await;
    let told: Status = serde_json::from_str(&answer).unwrap();
    assert_eq!((status.as_u16(), told.reason), (502, Reason::InternalError));
    assert_eq!(told.message, "the service cannot be reached");
    assert!(!answer.contains("127.0.0.1"), "{answer}");

    let (_, _, stream) = ask(&rig, "silent").await;
    let (mut waiting, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let waiting = tokio::spawn(async move { text(waiting.send_request(get("/")).await.unwrap()).await });
    let (_, _, stream) = ask(&rig, "well").await;
    let (mut well, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(text(well.send_request(get("/")).await.unwrap()).await.0, 200);
    assert_eq!(waiting.await.unwrap().0, 504);
    assert_eq!(rig.metric("moorline_service_refused_total{reason=\"upstream-timeout\"}"), 1);
    let causes: Vec<_> =
        rig.book.events().iter().map(|event| event["annotations"]["moorline.io/cause"].clone()).collect();
    assert!(causes.contains(&"upstream".into()) && causes.contains(&"upstream-timeout".into()), "{causes:?}");
    drop(silent);
}

/// A program that does not read holds back the service, not the server's memory.
#[tokio::test]
async fn a_response_flows_at_the_pace_of_its_reader() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&http(address));
    let mut sender = h1(&rig).await;
    let poured = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&poured);
    let serving = tokio::spawn(async move {
        let mut socket = accept(&listener).await;
        head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n").await.unwrap();
        let piece = vec![7; 64 * 1024];
        for _ in 0..1024 {
            if socket.write_all(&piece).await.is_err() {
                return;
            }
            count.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
        }
        drop(rest(&mut socket).await);
    });
    let response = sender.send_request(get("/large")).await.unwrap();
    let mut seen = 0;
    // Until it stands still.
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = poured.load(std::sync::atomic::Ordering::Relaxed);
        if now == seen && now > 0 {
            break;
        }
        seen = now;
    }
    assert!(seen < 32 << 20, "{seen} bytes are on their way to nobody");
    // Much for a slow machine, and code that is not optimised.
    let body = tokio::time::timeout(6 * LIMIT, response.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(body.to_bytes().len(), 64 << 20);
    drop(sender);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_cut_does_not_look_whole_and_a_program_that_leaves_is_noticed() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&http(address));
    let mut sender = h1(&rig).await;
    let request = tokio::spawn(async move { sender.send_request(get("/")).await.unwrap().into_body().collect().await });
    let mut socket = accept(&listener).await;
    head(&mut socket).await;
    socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
    drop(socket);
    assert!(tokio::time::timeout(LIMIT, request).await.unwrap().unwrap().is_err());

    let mut sender = h1(&rig).await;
    let asking = tokio::spawn(async move { drop(sender.send_request(get("/")).await) });
    let mut socket = accept(&listener).await;
    head(&mut socket).await;
    asking.abort();
    assert_eq!(rest(&mut socket).await.unwrap(), b"", "the service hears of it");
    rig.metric_is("moorline_service_streams", 0).await;
}

#[tokio::test]
async fn rights_are_looked_at_for_every_request() {
    let address = mirror().await;
    let rig = Rig::new(&http(address));
    let mut sender = h1(&rig).await;
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await.0, 200);
    rig.offer(&http(address).replace("[east]", "[west]"));
    let (status, answer) = text(sender.send_request(get("/")).await.unwrap()).await;
    assert_eq!(status, 404, "{answer}");
    rig.offer(&http(address));
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await.0, 200);
}

#[tokio::test]
async fn labels_are_those_of_now() {
    let address = mirror().await;
    let table = format!(
        "- {{name: web, clusterSelector: {{matchLabels: {{tier: production}}}}, upstream: '{address}', mode: HTTP}}\n"
    );
    let rig = Rig::new(&table);
    assert_eq!(ask(&rig, "web").await.0, 404);
    let cluster = rig.state.registry.by_name(&"east".parse().unwrap()).unwrap();
    let mut record = (*cluster.record()).clone();
    record.labels.insert("tier".to_owned(), "production".to_owned());
    rig.state.registry.update(&record);
    let mut sender = h1(&rig).await;
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await.0, 200);
    record.labels.clear();
    rig.state.registry.update(&record);
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await.0, 404);
}

#[tokio::test]
async fn a_service_may_speak_tls_and_is_verified() {
    let (listener, address) = listen().await;
    let table = |name: &str| {
        format!(
            "- {{name: web, clusters: [east], upstream: '{address}', mode: HTTP, upstreamTLS: {{caFile: CA, serverName: \
             {name}}}}}\n"
        )
    };
    let rig = Rig::new(&table("other.test"));
    let acceptor = rig.acceptor();
    let serving = tokio::spawn(async move {
        loop {
            let socket = accept(&listener).await;
            let Ok((mut tls, _)) = acceptor.accept(socket, LIMIT).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tls.read_u8().await.unwrap());
            }
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            tls.flush().await.unwrap();
            drop(rest(&mut tls).await);
            return String::from_utf8(head).unwrap();
        }
    });
    let (status, _) = text(h1(&rig).await.send_request(get("/")).await.unwrap()).await;
    assert_eq!(status, 502, "its certificate is for another name");
    rig.offer(&table("logs.test"));
    let mut sender = h1(&rig).await;
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await, (StatusCode::OK, "ok".to_owned()));
    drop(sender);
    let head = serving.await.unwrap();
    assert!(head.contains(&format!("host: logs.test:{}\r\n", address.port())), "{head}");
}

#[tokio::test]
async fn a_program_behind_our_own_agent_may_come_with_tls() {
    let rig = Rig::new(&http(mirror().await));
    let tls = rig.program(&[b"http/1.1"]).connect(stream(&rig).await, "logs.test", LIMIT).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await.0, 200);
}

/// A body that is uploaded slowly is no service that is silent.
#[tokio::test]
async fn a_slow_upload_is_waited_for() {
    let rig = Rig::with(&http(mirror().await), |settings| settings.gateway.response_timeout = Duration::from_secs(2));
    let (mut sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream(&rig).await)).await.unwrap();
    tokio::spawn(connection);
    let pieces = futures_util::stream::unfold(0, |number| async move {
        tokio::time::sleep(Duration::from_millis(250)).await;
        (number < 16).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"piece"))), number + 1))
    });
    let request = Request::post("/").header("host", "w").body(StreamBody::new(Box::pin(pieces))).unwrap();
    let (status, answer) = text(sender.send_request(request).await.unwrap()).await;
    assert!(status == 200 && answer.ends_with("piecepiece"), "{status} {answer}");
}

#[tokio::test]
async fn the_mux_of_http2_is_bounded() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&http(address).replace("mode:", "maxConnections: 8, mode:"));
    let tls = rig.tls("logs.test", &[b"h2"]).await.unwrap();
    let (sender, connection) =
        http2::Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let mut sender = sender.clone();
            let request = Request::get("https://logs.test/").body(Full::<Bytes>::default()).unwrap();
            tokio::spawn(async move { sender.send_request(request).await.map(|response| response.status()) })
        })
        .collect();
    // Four connections, the cluster's half, wait for ever; all others are told at once.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(accept(&listener).await);
    }
    rig.metric_is("moorline_service_refused_total{reason=\"busy\"}", 96).await;
    for one in &asking {
        one.abort();
    }
}

/// Nobody reads, so nobody asks the answer whether it may go on.
#[tokio::test]
async fn what_is_withdrawn_ends_though_nobody_reads_it() {
    let (listener, address) = listen().await;
    let mut rig = Rig::with(&http(address), |settings| settings.gateway.recheck_interval = Duration::from_millis(50));
    let mut stream = stream(&rig).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: w\r\n\r\n").await.unwrap();
    let mut socket = accept(&listener).await;
    head(&mut socket).await;
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n").await.unwrap();
    let mut pouring = std::pin::pin!(async {
        let piece = vec![7; 64 * 1024];
        while socket.write_all(&piece).await.is_ok() {}
    });
    // Until nothing moves any more.
    assert!(tokio::time::timeout(Duration::from_secs(1), pouring.as_mut()).await.is_err());
    assert_eq!(rig.metric("moorline_service_streams"), 1);
    rig.offer(&http(address).replace("[east]", "[west]"));
    tokio::time::timeout(LIMIT, pouring).await.expect("the service hears of it");
    rig.metric_is("moorline_service_streams", 0).await;
    let last = rig.book.events().pop().unwrap();
    assert_eq!(last["annotations"]["moorline.io/end"], "forbidden");
    drop(stream);
}

//! Guardian's entrance: what a program's TLS names, and nothing else, is where it gets.

use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_testkit::Refusing;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::rig::{LIMIT, Rig, accept, echo, listen, rest, until};

/// What a program reads that is told that there is no such server.
const NO_SUCH_SERVER: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
const UNREACHABLE: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

fn pass(address: std::net::SocketAddr) -> String {
    format!("- {{name: logs, serverNames: [logs.test], clusters: [east], upstream: '{address}', mode: PassThrough}}\n")
}

/// The first message of TLS that names this server.
async fn hello(rig: &Rig, name: &str) -> Vec<u8> {
    let (program, mut wire) = tokio::io::duplex(64 * 1024);
    let connector = rig.program(&[]);
    let name = name.to_owned();
    let connecting = tokio::spawn(async move { drop(connector.connect(program, &name, LIMIT).await) });
    let mut first = vec![0; 16 * 1024];
    let count = wire.read(&mut first).await.unwrap();
    connecting.abort();
    first.truncate(count);
    first
}

#[tokio::test]
async fn an_allowed_name_passes_bytes_both_ways_and_is_written_down() {
    let (listener, address) = listen().await;
    let mut rig = Rig::new(&pass(address));
    let acceptor = rig.acceptor();
    let serving = tokio::spawn(async move {
        let socket = accept(&listener).await;
        let (mut tls, _) = acceptor.accept(socket, LIMIT).await.unwrap();
        let asked = rest(&mut tls).await.unwrap();
        tls.write_all(&[2; 300_000]).await.unwrap();
        tls.shutdown().await.unwrap();
        asked
    });
    let mut tls = rig.tls("logs.test", &[b"anything"]).await.unwrap_err();
    // The service's own answer: it agrees to no such protocol.
    assert!(tls.to_string().contains("protocol"), "{tls}");
    serving.abort();

    let (listener, address) = listen().await;
    rig.offer(&pass(address));
    let acceptor = rig.acceptor();
    let serving = tokio::spawn(async move {
        let (mut tls, _) = acceptor.accept(accept(&listener).await, LIMIT).await.unwrap();
        let asked = rest(&mut tls).await.unwrap();
        tls.write_all(&[2; 300_000]).await.unwrap();
        tls.shutdown().await.unwrap();
        asked
    });
    let mut stream = rig.tls("LOGS.test", &[]).await.unwrap();
    stream.write_all(&[1; 200_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), vec![2; 300_000]);
    assert_eq!(serving.await.unwrap().len(), 200_000);
    drop(stream);
    rig.metric_is("moorline_service_streams", 0).await;
    assert_eq!(rig.metric("moorline_service_connections_total{by=\"server-name\"}"), 2);
    let events = rig.book.events();
    let last = events.last().unwrap();
    assert_eq!(last["stage"], "ResponseComplete");
    assert_eq!((&last["verb"], &last["user"]["username"]), (&"connect".into(), &"system:moorline:cluster:east".into()));
    assert_eq!(
        last["objectRef"],
        serde_json::json!({"resource": "managementservices", "name": "logs", "apiGroup": "moorline.io", "apiVersion": "v1alpha1"})
    );
    let notes = &last["annotations"];
    assert_eq!((&notes["moorline.io/cluster"], &notes["moorline.io/end"]), (&"east".into(), &"complete".into()));
    let bytes = |key: &str| notes[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(bytes("moorline.io/bytes-received") > 200_000 && bytes("moorline.io/bytes-sent") > 300_000, "{notes}");
    assert_eq!(last["requestURI"], "/v1/services/logs");
    tls = moorline_mtls::HandshakeError::NoClientCertificate;
    drop(tls);
}

#[tokio::test]
async fn names_that_are_not_for_the_cluster_are_all_alike() {
    let address = echo().await;
    let mut rig = Rig::new(&format!(
        "{}- {{name: others, serverNames: [others.test], clusters: [west], upstream: '{address}', mode: PassThrough}}\n",
        pass(address)
    ));
    for (name, reason) in [
        ("none.test", "unknown-name"),
        ("others.test", "forbidden"),
        ("xlogs.test", "unknown-name"),
        ("test", "unknown-name"),
    ] {
        let counted = format!("moorline_service_refused_total{{reason=\"{reason}\"}}");
        let before = rig.metric(&counted);
        let mut stream = rig.stream().await;
        stream.write_all(&hello(&rig, name).await).await.unwrap();
        assert_eq!(rest(&mut stream).await.unwrap(), NO_SUCH_SERVER, "{name}");
        assert_eq!(rig.metric(&counted), before + 1, "{name}");
    }
    // An address is not named in TLS at all.
    let mut stream = rig.stream().await;
    stream.write_all(&hello(&rig, "192.0.2.1").await).await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), NO_SUCH_SERVER);
    assert_eq!(rig.metric("moorline_service_refused_total{reason=\"no-name\"}"), 1);
    // Only what has a name of ours is written down, so that nobody fills the log with names of their own.
    let events = rig.book.events();
    let last = events.last().unwrap();
    assert!(events.iter().all(|event| event["objectRef"]["name"] == "others"), "{events:#?}");
    assert_eq!(
        (&last["responseStatus"]["code"], &last["annotations"]["authorization.k8s.io/decision"]),
        (&404.into(), &"forbid".into())
    );
}

#[tokio::test]
async fn what_is_not_tls_is_hung_up_on() {
    let rig = Rig::new(&pass(echo().await));
    let mut plain = rig.stream().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: logs.test\r\n\r\n").await.unwrap();
    assert!(rest(&mut plain).await.is_err(), "reset");
    let mut odd = rig.stream().await;
    odd.write_all(&[22, 3, 1, 0, 4, 2, 0, 0, 0]).await.unwrap();
    assert!(rest(&mut odd).await.is_err(), "reset");
    let mut silent = rig.stream().await;
    silent.shutdown().await.unwrap();
    assert!(rest(&mut silent).await.is_err(), "reset");
    for reason in ["not-tls", "bad-hello", "hello-ended"] {
        rig.metric_is(&format!("moorline_service_refused_total{{reason=\"{reason}\"}}"), 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn f32_a_slow_hello_costs_its_own_stream_and_ten_seconds() {
    let rig = Rig::new(&pass(([127, 0, 0, 1], 1).into()));
    let mut slow = rig.stream().await;
    let hello = hello(&rig, "logs.test").await;
    let trickling = async {
        for byte in &hello {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        panic!("it was let go on");
    };
    let began = tokio::time::Instant::now();
    trickling.await;
    assert!((10..13).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(rig.metric("moorline_service_refused_total{reason=\"hello-timeout\"}"), 1);
}

/// The hello is refused when it is known where it goes, and the place it took is there again.
#[tokio::test]
async fn f33_a_thousand_streams_at_once_take_their_places_and_no_more() {
    let address = echo().await;
    let rig = Rig::with(&pass(address), |settings| settings.services.max_streams = 100);
    let mut held = Vec::new();
    for _ in 0..600 {
        let mut stream = rig.stream().await;
        stream.write_all(&[22]).await.unwrap();
        held.push(stream);
    }
    rig.metric_is("moorline_service_refused_total{reason=\"busy\"}", 500).await;
    drop(held);
    until("places are free", || rig.state.tasks.by_name().iter().all(|(name, _)| *name != "service-stream")).await;
    let mut stream = rig.stream().await;
    let hello = hello(&rig, "logs.test").await;
    stream.write_all(&hello).await.unwrap();
    let mut back = vec![0; hello.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, hello, "the service gets every byte as it came");
}

#[tokio::test]
async fn one_cluster_has_half_of_a_service() {
    let address = echo().await;
    let table = pass(address).replace("mode:", "maxConnections: 4, mode:");
    let rig = Rig::new(&table);
    let first = hello(&rig, "logs.test").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = rig.stream().await;
        stream.write_all(&first).await.unwrap();
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    let mut third = rig.stream().await;
    third.write_all(&first).await.unwrap();
    assert_eq!(rest(&mut third).await.unwrap(), UNREACHABLE);
    drop(held.pop());
    rig.metric_is("moorline_service_streams", 1).await;
    let mut fourth = rig.stream().await;
    fourth.write_all(&first).await.unwrap();
    assert_eq!(fourth.read_u8().await.unwrap(), 22);
}

#[tokio::test]
async fn a_dead_service_is_told_at_once() {
    let nobody = Refusing::bind().unwrap();
    let mut rig = Rig::new(&pass(nobody.address()));
    let mut stream = rig.stream().await;
    stream.write_all(&hello(&rig, "logs.test").await).await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), UNREACHABLE);
    assert_eq!(rig.metric("moorline_service_refused_total{reason=\"upstream\"}"), 1);
    let last = rig.book.events().pop().unwrap();
    assert_eq!(
        (&last["responseStatus"]["code"], &last["annotations"]["moorline.io/cause"]),
        (&502.into(), &"upstream".into())
    );
}

#[tokio::test]
async fn half_of_a_connection_may_end_and_a_cut_is_passed_on() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&pass(address));
    let first = hello(&rig, "logs.test").await;
    let mut stream = rig.stream().await;
    stream.write_all(&first).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut socket = accept(&listener).await;
    assert_eq!(rest(&mut socket).await.unwrap(), first);
    socket.write_all(b"still here").await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), b"still here");

    // A program that hangs up.
    let mut stream = rig.stream().await;
    stream.write_all(&first).await.unwrap();
    let mut socket = accept(&listener).await;
    socket.read_exact(&mut vec![0; first.len()]).await.unwrap();
    stream.reset();
    // In whatever way, it ends.
    drop(rest(&mut socket).await);

    // A service that breaks.
    let mut stream = rig.stream().await;
    stream.write_all(&first).await.unwrap();
    let mut socket = accept(&listener).await;
    socket.read_exact(&mut vec![0; first.len()]).await.unwrap();
    socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(socket);
    assert!(rest(&mut stream).await.is_err(), "a cut is no end");
}

/// A program that reads nothing holds up its own stream only.
#[tokio::test]
async fn a_program_that_does_not_read_delays_nobody() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&pass(address));
    let first = hello(&rig, "logs.test").await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut stream = rig.stream().await;
        stream.write_all(&first).await.unwrap();
        stuck.push(stream);
        let mut socket = accept(&listener).await;
        tokio::spawn(async move {
            let pour = vec![7; 64 * 1024];
            while socket.write_all(&pour).await.is_ok() {}
        });
    }
    let mut stream = rig.stream().await;
    stream.write_all(&first).await.unwrap();
    let mut socket = accept(&listener).await;
    socket.write_all(b"at once").await.unwrap();
    socket.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), b"at once");
}

#[tokio::test]
async fn a_service_that_is_withdrawn_is_cut() {
    let address = echo().await;
    let mut rig = Rig::with(&pass(address), |settings| {
        settings.gateway.recheck_interval = std::time::Duration::from_millis(20);
    });
    let mut stream = rig.stream().await;
    stream.write_all(&hello(&rig, "logs.test").await).await.unwrap();
    stream.read_u8().await.unwrap();
    rig.offer(&pass(address).replace("[east]", "[west]"));
    assert!(rest(&mut stream).await.is_err(), "cut");
    rig.metric_is("moorline_service_streams", 0).await;
    let last = rig.book.events().pop().unwrap();
    assert_eq!(last["annotations"]["moorline.io/end"], "forbidden");
}

#[tokio::test]
async fn tls_ends_here_for_http_and_says_which_cluster_it_is() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&format!(
        "- {{name: logs, serverNames: [logs.test], clusters: ['*'], upstream: '{address}', mode: HTTP, tls: \
         {{certificateFile: CERT, privateKeyFile: KEY}}}}\n"
    ));
    let serving = tokio::spawn(async move {
        let mut socket = accept(&listener).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let tls = rig.tls("logs.test", &[b"http/1.1"]).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/_bulk?x=1")
        .header("host", "logs.test")
        .header("x-cluster-id", "west")
        .header("x_cluster_id", "west")
        .header("authorization", "Bearer mine")
        .body(String::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
    let head = serving.await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /_bulk?x=1 http/1.1\r\n"), "{head}");
    assert_eq!(head.matches("cluster").count(), 1, "{head}");
    for line in ["x-cluster-id: east\r\n", "authorization: bearer mine\r\n", &format!("host: {address}\r\n")] {
        assert!(head.contains(line), "{line} in {head}");
    }
}

/// An address that answers to nothing, behind which others wait.
#[tokio::test]
async fn a_service_that_never_answers_costs_its_own_stream() {
    let (silent, silent_address) = listen().await;
    let address = echo().await;
    let rig = Rig::new(&format!(
        "{}- {{name: silent, serverNames: [silent.test], clusters: [east], upstream: '{silent_address}', mode: PassThrough}}\n",
        pass(address)
    ));
    let quiet = hello(&rig, "silent.test").await;
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut stream = rig.stream().await;
        stream.write_all(&quiet).await.unwrap();
        held.push(stream);
    }
    let mut stream = rig.stream().await;
    stream.write_all(&hello(&rig, "logs.test").await).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 22);
    drop((held, silent));
}

/// A service that takes connections and reads nothing is no reason to keep what a program left behind.
#[tokio::test]
async fn a_program_that_leaves_a_stuck_service_is_noticed() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&pass(address));
    let mut stream = rig.stream().await;
    stream.write_all(&hello(&rig, "logs.test").await).await.unwrap();
    let socket = accept(&listener).await;
    let pouring = async {
        let piece = vec![7; 64 * 1024];
        while stream.write_all(&piece).await.is_ok() {}
    };
    // Until nothing moves any more.
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), pouring).await.is_err());
    assert_eq!(rig.metric("moorline_service_streams"), 1);
    stream.reset();
    rig.metric_is("moorline_service_streams", 0).await;
    drop(socket);
}

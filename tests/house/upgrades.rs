//! Connections that switch protocols (exec, attach, port-forward): every byte, both ends, and every way to break.

use std::io;

use moorline_mtls::ClientStream;
use moorline_testkit::client::{Client, LIMIT};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::people::{ALICE, House, code, until};

/// What `/echo` says when its input has ended.
const END: &[u8] = b"|end of your input|";

type Socket = ClientStream<TcpStream>;

/// Asks for an upgrade with `early` bytes right behind the head, and reads the head of the answer.
async fn upgrade(user: &Client, path: &str, early: &[u8]) -> (Socket, String) {
    let mut socket = user.tls(&[b"http/1.1"]).await.unwrap();
    let head = format!(
        "POST /clusters/east{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ALICE}\r\n\
         Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
    );
    socket.write_all(&[head.as_bytes(), early].concat()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(LIMIT, socket.read_u8()).await.unwrap().unwrap());
    }
    (socket, String::from_utf8(head).unwrap())
}

async fn read_to_end(socket: &mut Socket) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::time::timeout(LIMIT, socket.read_to_end(&mut bytes)).await.unwrap()?;
    Ok(bytes)
}

/// Bytes in which every shift and every swap shows.
fn pattern(length: u32) -> Vec<u8> {
    (0..length / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test]
async fn f14_eight_mebibytes_each_way_arrive_as_sent_with_half_close() {
    let house = House::new().await;
    let (socket, head) = upgrade(&house.user(ALICE), "/echo", b"").await;
    assert_eq!(code(&head), 101, "{head}");
    assert!(head.to_lowercase().contains("\r\nupgrade: spdy/3.1\r\n"), "{head}");
    let sent = pattern(8 << 20);
    let expected = [&sent, END].concat();
    let (mut read, mut write) = tokio::io::split(socket);
    let mut came = Vec::new();
    let (wrote, ()) = tokio::join!(
        async {
            write.write_all(&sent).await?;
            write.shutdown().await
        },
        async {
            tokio::time::timeout(LIMIT, read.read_to_end(&mut came)).await.unwrap().unwrap();
        }
    );
    wrote.unwrap();
    assert!(came == expected, "{} of {} bytes", came.len(), expected.len());
    until("the upgrade has ended upstream", async || house.upstream.running() == 0).await;
}

#[tokio::test]
async fn f14_the_cluster_may_finish_first_and_still_listens() {
    let house = House::new().await;
    let (mut socket, head) = upgrade(&house.user(ALICE), "/greet-then-read", b"").await;
    assert_eq!(code(&head), 101, "{head}");
    assert_eq!(read_to_end(&mut socket).await.unwrap(), b"greetings");
    assert_eq!(house.upstream.running(), 1, "it waits for the rest of what we say");
    socket.write_all(&pattern(1 << 20)).await.unwrap();
    assert_eq!(house.upstream.running(), 1);
    socket.shutdown().await.unwrap();
    until("the upgrade has ended upstream", async || house.upstream.running() == 0).await;
}

#[tokio::test]
async fn f14_bytes_right_behind_the_head_are_not_lost() {
    let house = House::new().await;
    for length in [1, 100, 5_000, 60_000] {
        let early = pattern(length.max(4));
        let (mut socket, head) = upgrade(&house.user(ALICE), "/echo", &early).await;
        assert_eq!(code(&head), 101, "{head}");
        socket.write_all(b"later").await.unwrap();
        socket.shutdown().await.unwrap();
        let came = read_to_end(&mut socket).await.unwrap();
        assert!(came == [&early[..], b"later", END].concat(), "{length}: {} bytes", came.len());
    }
}

#[tokio::test]
async fn f13_a_refused_upgrade_is_delivered_whole() {
    let house = House::new().await;
    for (path, status, text) in [
        ("/refuse-upgrade", 403, "no upgrade for you, and this is why"),
        ("/status/404", 404, "as you asked"),
        ("/status/500", 500, "as you asked"),
        ("/api/v1/pods", 200, r#"{"kind":"Scripted"}"#),
    ] {
        for early in [&b""[..], b"early bytes for nobody"] {
            let (mut socket, head) = upgrade(&house.user(ALICE), path, early).await;
            assert_eq!(code(&head), status, "{head}");
            let mut body = vec![0; text.len()];
            tokio::time::timeout(LIMIT, socket.read_exact(&mut body)).await.unwrap().unwrap();
            assert_eq!(String::from_utf8(body).unwrap(), text);
        }
    }
    until("nothing is left upstream", async || house.upstream.running() == 0).await;
}

#[tokio::test]
async fn f14_a_reset_is_not_taken_for_an_end() {
    let house = House::new().await;
    let (mut socket, head) = upgrade(&house.user(ALICE), "/break", b"").await;
    assert_eq!(code(&head), 101, "{head}");
    let mut half = [0; 10];
    socket.read_exact(&mut half).await.unwrap();
    assert_eq!(&half, b"half a sen");
    socket.write_all(b"?").await.unwrap();
    read_to_end(&mut socket).await.expect_err("a reset must not look like the end of what was said");
}

#[tokio::test]
async fn f12_a_user_who_is_gone_ends_the_upgrade_upstream() {
    let house = House::new().await;
    for path in ["/echo", "/greet-then-read"] {
        let (socket, head) = upgrade(&house.user(ALICE), path, b"").await;
        assert_eq!(code(&head), 101, "{head}");
        until("it runs", async || house.upstream.running() == 1).await;
        // No farewell: the socket closes under TLS.
        drop(socket);
        until("it has ended upstream", async || house.upstream.running() == 0).await;
    }
}

#[tokio::test]
async fn f12_five_hundred_upgrades_leave_nothing_behind() {
    const AT_ONCE: usize = 20;
    let house = House::new().await;
    let user = house.user(ALICE);
    let tasks = house.server.metric("moorline_tasks", &[]).await.unwrap();
    for _ in 0..500 / AT_ONCE {
        let mut batch = JoinSet::new();
        for number in 0..AT_ONCE {
            let user = user.clone();
            batch.spawn(async move {
                let (mut socket, head) = upgrade(&user, "/echo", b"ping").await;
                assert_eq!(code(&head), 101, "{head}");
                // Half of them leave in order, half just go.
                if number % 2 == 0 {
                    socket.shutdown().await.unwrap();
                    assert_eq!(read_to_end(&mut socket).await.unwrap(), [b"ping", END].concat());
                }
            });
        }
        batch.join_all().await;
    }
    house.at_rest(tasks).await;
}

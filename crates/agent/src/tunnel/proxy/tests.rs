//! Which proxy, and what is made of its answers. The proxy is the other end of an in-memory pipe.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

fn choose(proxy: &str, no_proxy: &str, host: &str) -> Result<Option<String>, InvalidProxy> {
    let variables = ProxyVariables { proxy: proxy.to_owned(), no_proxy: no_proxy.to_owned() };
    Ok(Proxy::choose(&variables, host, 9449)?.map(|proxy| proxy.to_string()))
}

#[test]
fn the_environment_decides() {
    let via = |text: &str| Ok(Some(text.to_owned()));
    for (proxy, no_proxy, host, wanted) in [
        ("", "", "hub.example.com", Ok(None)),
        ("  ", "", "hub.example.com", Ok(None)),
        ("http://proxy:3128", "", "hub.example.com", via("http://proxy:3128")),
        ("proxy:3128", "", "hub.example.com", via("http://proxy:3128")),
        ("http://proxy", "", "hub.example.com", via("http://proxy:80")),
        ("https://proxy", "", "hub.example.com", via("https://proxy:443")),
        ("http://user:secret@proxy:3128", "", "hub.example.com", via("http://proxy:3128")),
        ("http://[fd00::1]:3128", "", "hub.example.com", via("http://[fd00::1]:3128")),
        ("http://proxy:3128", "example.com", "hub.example.com", Ok(None)),
        ("http://proxy:3128", ".example.com", "hub.example.com", Ok(None)),
        ("http://proxy:3128", "example.com", "notexample.com", via("http://proxy:3128")),
        ("http://proxy:3128", "10.0.0.0/8", "10.1.2.3", Ok(None)),
        ("http://proxy:3128", "10.0.0.0/8", "11.1.2.3", via("http://proxy:3128")),
        ("http://proxy:3128", "fd00::/8", "fd00::7", Ok(None)),
        ("http://proxy:3128", "*", "hub.example.com", Ok(None)),
        ("http://proxy:3128", "", "localhost", Ok(None)),
        ("http://proxy:3128", "", "LocalHost", Ok(None)),
        ("http://proxy:3128", "", "127.0.0.1", Ok(None)),
        ("http://proxy:3128", "", "127.8.9.10", Ok(None)),
        ("http://proxy:3128", "", "::1", Ok(None)),
        ("http://proxy:3128", "", "::ffff:127.0.0.1", Ok(None)),
        ("http://proxy:3128", "", "localhost.example.com", via("http://proxy:3128")),
        ("http://proxy:3128", "", "128.0.0.1", via("http://proxy:3128")),
        ("socks5://proxy:1080", "", "localhost", Ok(None)),
        ("socks5://proxy:1080", "", "hub.example.com", Err(InvalidProxy::Socks)),
        ("ftp://proxy", "", "hub.example.com", Err(InvalidProxy::Url)),
        ("http://pro xy", "", "hub.example.com", Err(InvalidProxy::Url)),
        ("http://pro xy", "*", "hub.example.com", Err(InvalidProxy::Url)),
    ] {
        assert_eq!(choose(proxy, no_proxy, host), wanted, "{proxy:?} {no_proxy:?} {host}");
    }
}

#[test]
fn credentials_do_not_print() {
    let variables = ProxyVariables { proxy: "http://user:s3cret@proxy:3128".to_owned(), no_proxy: String::new() };
    let proxy = Proxy::choose(&variables, "hub", 9449).unwrap().unwrap();
    let printed = format!("{variables:?} {proxy:?} {proxy}");
    assert!(!printed.contains("s3cret") && !printed.contains("user"), "{printed}");
    assert!(printed.contains("with credentials"), "{printed}");
}

/// Asks a scripted proxy; gives back the outcome, what the proxy was sent, and the proxy's end.
async fn ask(proxy: &str, answer: &[u8]) -> (Result<DuplexStream, ConnectError>, String, DuplexStream) {
    let variables = ProxyVariables { proxy: proxy.to_owned(), no_proxy: String::new() };
    let proxy = Proxy::choose(&variables, "hub.example.com", 9449).unwrap().unwrap();
    let (ours, mut theirs) = duplex(64 * 1024);
    let scripted = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(theirs.read_u8().await.unwrap());
        }
        theirs.write_all(answer).await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let (connected, head) = tokio::join!(proxy.connect(ours, "hub.example.com", 9449), scripted);
    (connected, head, theirs)
}

#[tokio::test]
async fn success_opens_the_way_and_basic_credentials_are_sent() {
    let (connected, head, mut theirs) =
        ask("http://Aladdin:open%20sesame@proxy:3128", b"HTTP/1.1 200 Connection established\r\n\r\n").await;
    assert!(head.starts_with("CONNECT hub.example.com:9449 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("host: hub.example.com:9449\r\n"), "{head}");
    assert!(head.contains("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), "{head}");
    let mut ours = connected.unwrap();
    ours.write_all(b"ping").await.unwrap();
    theirs.write_all(b"pong").await.unwrap();
    let (mut at_proxy, mut at_agent) = ([0; 4], [0; 4]);
    theirs.read_exact(&mut at_proxy).await.unwrap();
    ours.read_exact(&mut at_agent).await.unwrap();
    assert_eq!((&at_proxy, &at_agent), (b"ping", b"pong"));
}

#[tokio::test]
async fn refusals_carry_their_status() {
    for (answer, status) in [
        (&b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nbody"[..], 407),
        (b"HTTP/1.0 502 Bad Gateway\r\nConnection: close\r\n\r\n", 502),
        (b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 403),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://login/\r\nContent-Length: 0\r\n\r\n", 301),
    ] {
        let (connected, _head, _theirs) = ask("http://proxy:3128", answer).await;
        let error = connected.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(code) if code.as_u16() == status), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 2 * MAX_HEAD]].concat();
    for answer in [&b"SSH-2.0-OpenSSH_9.7\r\n\r\n"[..], &endless] {
        let (connected, _head, _theirs) = ask("http://proxy:3128", answer).await;
        assert!(matches!(connected.unwrap_err(), ConnectError::Broken(_)));
    }
}

#[tokio::test]
async fn early_bytes_are_refused() {
    let (connected, _head, _theirs) = ask("http://proxy:3128", b"HTTP/1.1 200 OK\r\n\r\nhello there").await;
    assert!(matches!(connected.unwrap_err(), ConnectError::EarlyBytes(11)));
}

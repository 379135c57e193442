//! Guardian's dialect as the libraries see it, with the stand-in in Go on the other end: what it is that the server has
//! to live with.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use moorline_mux::CloseReason;
use moorline_testkit::guardian::{Settings, StandIn, Tls};
use moorline_testkit::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::management::{Management, Session, upgrade};
use crate::peer::within;

/// A management side, a Guardian and a kube-apiserver.
struct Play {
    management: Management,
    upstream: Upstream,
    guardian: StandIn,
    session: Session,
}

impl Play {
    async fn set(change: impl FnOnce(&mut Settings)) -> Option<Self> {
        let management = Management::start().await;
        let upstream = Upstream::start().await.unwrap();
        let mut settings = management.settings(&upstream.url());
        change(&mut settings);
        let guardian = StandIn::start_or_skip(&settings).await.unwrap()?;
        let session = management.session().await;
        Some(Self { management, upstream, guardian, session })
    }
}

#[tokio::test]
async fn both_versions_of_tls_and_no_protocol() {
    for (tls, version) in [(Tls::V12, "1.2"), (Tls::V13, "1.3")] {
        let Some(mut play) = Play::set(|settings| settings.tls = Some(tls)).await else { return };
        assert!(play.session.version.contains(version), "{}", play.session.version);
        let told = play.guardian.event("connected").await.unwrap();
        assert_eq!(told, format!("TLS {version} alpn=\"\" name=moorline-tunnel"));
        assert_eq!(play.session.peer.common_name().as_deref(), Some("east"));
        play.session.http1().await;
    }
}

#[tokio::test]
async fn two_roots_are_all_that_is_routed_and_identity_is_ours_to_say() {
    let Some(play) = Play::set(|_| {}).await else { return };
    let mut sender = play.session.http2().await;
    let mut ask = async |path: &str| {
        let request = Request::get(format!("https://cluster{path}"))
            .header("authorization", "Bearer a-users-own")
            .header("impersonate-user", "alice");
        let answer = within(sender.send_request(request.body(Empty::new()).unwrap())).await.unwrap();
        assert!(answer.headers().contains_key("strict-transport-security"));
        answer.status()
    };
    assert_eq!(ask("/version").await, StatusCode::NOT_FOUND);
    assert_eq!(ask("/readyz").await, StatusCode::NOT_FOUND);
    assert_eq!(ask("/openapi/v2").await, StatusCode::NOT_FOUND);
    // 301 until Go 1.25, 307 from then on.
    assert!(ask("/api").await.is_redirection());
    assert_eq!(ask("/api/").await, StatusCode::OK);
    assert_eq!(ask("/apis/apps/v1?limit=2").await, StatusCode::OK);
    let seen = play.upstream.seen("/apis/apps/v1");
    assert_eq!(seen[0].uri, "/apis/apps/v1?limit=2");
    assert_eq!(seen[0].values("authorization"), ["Bearer guardians-own-token"]);
    assert_eq!(seen[0].values("impersonate-user"), ["alice"]);
    assert_eq!(seen[0].values("x-forwarded-host"), [""]);
    assert!(play.upstream.seen("/version").is_empty());
}

/// Without the byte the head arrives and the connection dies, whatever Guardian or its kube-apiserver do.
#[tokio::test]
async fn upgrades_work_with_a_sacrificed_byte_and_break_without() {
    const PATH: &str = "/api/v1/watch/echo";
    let Some(play) = Play::set(|_| {}).await else { return };
    for _ in 0..3 {
        let mut plain = play.session.http1().await;
        assert!(upgrade(&mut plain, PATH, false).await.starts_with("HTTP/1.1 101"));
        plain.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        assert!(within(plain.read_exact(&mut got)).await.is_err(), "a plain upgrade works now: {got:?}");

        let mut cured = play.session.http1().await;
        assert!(upgrade(&mut cured, PATH, true).await.starts_with("HTTP/1.1 101"));
        let sent = crate::peer::pattern(3 << 20);
        let (mut read, mut write) = tokio::io::split(cured);
        let sending = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut got = vec![0; sent.len()];
        let ((), read) = within(async { tokio::join!(sending, read.read_exact(&mut got)) }).await;
        read.unwrap();
        assert!(got == sent);
    }
    assert!(play.session.handle.is_open());
}

/// Go's yamux has no half-close: once the end of a stream has come, nobody reads it any more, and what is written fills
/// its window and stays there until Go gives the stream up after five minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_stream_is_the_end_of_both_its_sides() {
    let Some(play) = Play::set(|_| {}).await else { return };
    let mut stream = play.session.http1().await;
    assert!(upgrade(&mut stream, "/api/v1/watch/break", true).await.starts_with("HTTP/1.1 101"));
    stream.write_all(b"go on").await.unwrap();
    stream.flush().await.unwrap();
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(!rest.is_empty());
    // More than a window: it stays half-open for as long as we leave it so.
    let bytes = vec![0; 2 << 20];
    let writing = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&bytes)).await;
    assert!(writing.is_err(), "{writing:?}");
    assert_eq!(play.session.handle.stats().streams_open_outbound, 1);
    drop(stream);
    assert!(play.session.handle.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once_in_each_direction() {
    let Some(mut play) = Play::set(|_| {}).await else { return };
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(within(play.session.handle.open()).await.unwrap());
    }
    assert_eq!(play.session.handle.stats().streams_open_outbound, 1000);
    for stream in &mut streams {
        // A record that is no TLS: Guardian hangs up on it.
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    }
    for mut stream in streams {
        let mut told = Vec::new();
        within(stream.read_to_end(&mut told)).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    play.guardian.say("open 1000 hello").unwrap();
    let mut theirs = JoinSet::new();
    for _ in 0..1000 {
        let mut stream = within(play.session.incoming.accept()).await.unwrap();
        theirs.spawn(async move {
            let mut got = [0; 5];
            within(stream.read_exact(&mut got)).await.unwrap();
            assert_eq!(&got, b"hello");
            stream.shutdown().await.unwrap();
            // It says that it is done, too.
            assert_eq!(within(stream.read(&mut got)).await.unwrap(), 0);
        });
    }
    theirs.join_all().await;
    assert_eq!(play.guardian.event("done").await.unwrap(), "open 1000 <nil>");
    let stats = play.session.handle.stats();
    assert_eq!((stats.refused_total, stats.shed_total), (0, 0));
    assert!(play.session.handle.is_open());
}

/// Those of today end for ever unless a session ends between two TLS records: a farewell is best, a plain end will do,
/// and a reset, which the kernel sends for what nobody reads any more, kills them.
#[tokio::test]
async fn a_reset_is_what_those_of_today_do_not_survive() {
    let Some(play) = Play::set(|settings| settings.mortal = true).await else { return };
    let mut guardian = play.guardian;
    play.session.handle.close(CloseReason::Local("test"));
    assert_eq!(guardian.event("ended").await.unwrap(), "EOF");
    drop(play.session);

    let silent = play.management.session().await;
    silent.driver.abort();
    assert_eq!(guardian.event("ended").await.unwrap(), "EOF");

    let socket = play.management.accept().await;
    socket.set_zero_linger().unwrap();
    play.management.greet(socket).await.driver.abort();
    assert!(guardian.event("ended").await.unwrap().ends_with("connection reset by peer"));
    guardian.event("dead").await.unwrap();
}

#[tokio::test]
async fn guardian_hangs_up_and_comes_back() {
    let Some(mut play) = Play::set(|_| {}).await else { return };
    for command in ["hang-up", "reset"] {
        play.guardian.command(command).await.unwrap();
        let reason = within(&mut play.session.driver).await.unwrap();
        assert!(
            matches!(reason, CloseReason::PeerClosed | CloseReason::PeerGoAway(0) | CloseReason::Io(..)),
            "{reason}"
        );
        play.session = play.management.session().await;
    }
}

#[tokio::test]
async fn answers_are_streamed_as_they_come() {
    let Some(play) = Play::set(|_| {}).await else { return };
    let mut sender = play.session.http2().await;
    let request = Request::get("https://cluster/api/v1/watch/ticks").body(Empty::new()).unwrap();
    let mut ticks = within(sender.send_request(request)).await.unwrap().into_body();
    for _ in 0..5 {
        within(ticks.frame()).await.unwrap().unwrap();
    }
    assert_eq!(play.upstream.running(), 1);
    drop(ticks);
    let ended = async || (play.upstream.running() == 0).then_some(());
    moorline_testkit::eventually(moorline_testkit::client::LIMIT, ended).await.unwrap();
}

//! How sessions end, and what the other side makes of it.

use moorline_mux::{CloseReason, OpenError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peer::{both_roles, connect, within};

#[test]
fn a_cut_session_ends_go() {
    both_roles(async |config| {
        let session = connect(config).await;
        let mut stream = session.command("echo").await;
        session.handle.close(CloseReason::Local("test"));
        assert_eq!(within(session.handle.closed()).await, CloseReason::Local("test"));
        assert!(within(stream.read(&mut [0])).await.is_err());
        assert!(session.go_ends().await.contains("session ended"));
    });
}

#[test]
fn a_drained_session_finishes_what_runs_and_then_ends_go() {
    both_roles(async |config| {
        let mut session = connect(config).await;
        let mut stream = session.command("echo").await;
        session.handle.drain();
        assert_eq!(session.handle.open().await.unwrap_err(), OpenError::Draining);
        stream.write_all(b"still here").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = String::new();
        within(stream.read_to_string(&mut got)).await.unwrap();
        assert_eq!(got, "still here");
        drop(stream);
        assert_eq!(within(&mut session.driver).await.unwrap(), CloseReason::Drained);
        session.go_ends().await;
    });
}

/// Go says that it goes away and lets open streams finish. The engine alone would cut them.
#[test]
fn gos_go_away_lets_streams_finish() {
    both_roles(async |config| {
        let mut session = connect(config).await;
        let mut running = session.command("echo").await;
        let mut leaving = session.command("goaway").await;
        within(session.handle.not_open()).await;
        assert_eq!(session.handle.open().await.unwrap_err(), OpenError::Draining);
        running.write_all(b"until the end").await.unwrap();
        running.shutdown().await.unwrap();
        let mut got = String::new();
        within(running.read_to_string(&mut got)).await.unwrap();
        assert_eq!(got, "until the end");
        leaving.shutdown().await.unwrap();
        got.clear();
        within(leaving.read_to_string(&mut got)).await.unwrap();
        assert_eq!(got, "goaway <nil>\n");
        drop((running, leaving));
        assert_eq!(within(&mut session.driver).await.unwrap(), CloseReason::PeerGoAway(0));
        session.go_ends().await;
    });
}

#[test]
fn a_killed_go_is_found_at_once() {
    both_roles(async |config| {
        let mut session = connect(config).await;
        let mut stream = session.command("echo").await;
        session.kill().await;
        assert!(within(stream.read(&mut [0])).await.is_err());
        let reason = within(&mut session.driver).await.unwrap();
        assert!(matches!(reason, CloseReason::PeerClosed | CloseReason::Io(..)), "{reason}");
    });
}

//! Windows that grow with the need: one stream must fill a long link.
//!
//! On the real clock, since the engine measures the round trip by it. The bounds are wide; the figures
//! that matter are those of the benches.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::link::{Shape, link};
use crate::{Config, Role};

/// Bytes a second over one stream and a round trip of 50 ms, once the stream had time to grow.
async fn rate(receiver: Config) -> f64 {
    let shape = Shape { latency: Duration::from_millis(25), room: 256 << 20, ..Shape::default() };
    let (a, b, _scissors) = link(shape, 1);
    let (client, _client_incoming, client_driver) = crate::session(a, Config::new(Role::Client));
    let (_server, mut incoming, server_driver) = crate::session(b, receiver);
    let sending = async {
        let mut stream = client.open().await.unwrap();
        let bytes = vec![0; 64 * 1024];
        while stream.write_all(&bytes).await.is_ok() {}
    };
    let receiving = async {
        let mut stream = incoming.accept().await.unwrap();
        let mut bytes = vec![0; 64 * 1024];
        let (mut start, mut sum) = (Instant::now(), 0);
        let mut grown = false;
        while start.elapsed() < Duration::from_millis(if grown { 500 } else { 1200 }) {
            sum += stream.read(&mut bytes).await.unwrap();
            if !grown && start.elapsed() > Duration::from_secs(1) {
                (start, sum, grown) = (Instant::now(), 0, true);
            }
        }
        sum as f64 / start.elapsed().as_secs_f64()
    };
    tokio::select! {
        rate = receiving => rate,
        () = sending => panic!("the stream broke"),
        reason = client_driver => panic!("{reason}"),
        reason = server_driver => panic!("{reason}"),
    }
}

#[tokio::test]
async fn f38_one_stream_fills_a_long_link() {
    let server = || Config::new(Role::Server);
    let fixed = rate(server().with_receive_window_budget(0)).await;
    let grown = rate(server()).await;
    assert!(fixed < 6e6, "256 KiB in 50 ms are 5.2 MB/s: {fixed}");
    // How far a grown one gets is up to the processor; what holds the fixed one is its window.
    assert!(grown > 3.0 * fixed, "fixed {fixed}, grown {grown}");
}

/// A raw Go writer fills its window with one frame, and frames over 1 MiB end the session.
#[tokio::test]
async fn windows_for_a_raw_go_peer_stay_within_one_frame() {
    let rate = rate(Config::new(Role::Server).with_raw_go_peer()).await;
    assert!(rate < 22e6, "1 MiB in 50 ms are 21 MB/s: {rate}");
}

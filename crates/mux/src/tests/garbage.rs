//! Bytes that no proper peer sends. Nothing may panic, hang or pass a limit; the session may end.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::frame::{Header, Kind};
use crate::{CloseReason, Config, Incoming, MemoryBudget, Role};

/// Reads what comes and answers it, as an application would.
async fn serve(mut incoming: Incoming) {
    let mut tasks = JoinSet::new();
    while let Some(mut stream) = incoming.accept().await {
        tasks.spawn(async move {
            let mut bytes = [0; 700];
            while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..read]).await.is_err() {
                    return;
                }
            }
            let _gone = stream.shutdown().await;
        });
    }
}

/// Feeds a session, then hangs up. Gives the reason with which it ended.
fn feed(role: Role, bytes: &[u8], pieces: usize) -> CloseReason {
    super::paused(async move {
        let budget = MemoryBudget::new(1 << 20);
        let config = Config::new(role)
            .with_memory(budget.clone())
            .with_max_inbound_streams(8)
            .with_write_stall(Duration::from_secs(5));
        let (io, peer) = tokio::io::duplex(512);
        let (handle, incoming, driver) = crate::session(io, config);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(incoming));
        for _ in 0..3 {
            let handle = handle.clone();
            tasks.spawn(async move {
                if let Ok(mut stream) = handle.open().await {
                    let _cut = stream.write_all(b"hello").await;
                    let mut sink = Vec::new();
                    let _cut = stream.read_to_end(&mut sink).await;
                }
            });
        }
        let (mut read, mut write) = tokio::io::split(peer);
        let sending = async {
            for piece in bytes.chunks(pieces) {
                if write.write_all(piece).await.is_err() {
                    break;
                }
            }
            let _gone = write.shutdown().await;
        };
        let draining = async {
            let mut sink = [0; 4096];
            while let Ok(1..) = read.read(&mut sink).await {}
        };
        let ended = async {
            let reason = driver.await;
            assert!(budget.used() <= 3 << 20, "{}", budget.used());
            reason
        };
        let all = async { tokio::join!(ended, sending, draining).0 };
        let reason = tokio::time::timeout(Duration::from_secs(60), all).await.expect("it ends");
        tasks.join_all().await;
        drop(handle);
        assert_eq!(budget.used(), 0, "all is given back");
        reason
    })
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Client), Just(Role::Server)]
}

/// Frames that are mostly plausible: few streams, real kinds and flags, bodies that match.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        5 => Just(Kind::Data),
        3 => Just(Kind::WindowUpdate),
        1 => Just(Kind::Ping),
        1 => (0..6_u8).prop_map(|kind| Header::decode([0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).kind),
    ];
    let value = prop_oneof![5 => 0..2000_u32, 1 => any::<u32>()];
    let frame = (kind, 0..16_u16, 0..12_u32, value, any::<bool>());
    proptest::collection::vec(frame, 0..40).prop_map(|frames| {
        let mut bytes = Vec::new();
        for (kind, flags, stream, value, honest) in frames {
            let header = Header { version: 0, kind, flags, stream, value };
            bytes.extend(header.encode());
            if honest {
                bytes.resize(bytes.len() + (header.body() as usize).min(4096), 7);
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(role in role(), bytes: Vec<u8>, pieces in 1..100_usize) {
        feed(role, &bytes, pieces);
    }

    #[test]
    fn plausible_frames(role in role(), bytes in frames(), pieces in 1..5000_usize) {
        feed(role, &bytes, pieces);
    }
}

//! A peer that writes and reads frames by hand, to see exactly what is on the wire and to say what no
//! proper peer would.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use crate::frame::{HEADER, Header, Kind};
use crate::{CloseReason, Config, Handle, Incoming};

/// Long enough, on the virtual clock, for everything that can happen to have happened.
const SETTLED: Duration = Duration::from_millis(200);

pub(super) struct Raw {
    pub(super) io: DuplexStream,
}

pub(super) struct Ours {
    pub(super) handle: Handle,
    pub(super) incoming: Incoming,
    pub(super) driver: JoinHandle<CloseReason>,
}

#[expect(clippy::disallowed_methods, reason = "a library's tests have no task tracker")]
pub(super) fn against_raw(config: Config, room: usize) -> (Ours, Raw) {
    let (a, io) = tokio::io::duplex(room);
    let (handle, incoming, driver) = crate::session(a, config);
    (Ours { handle, incoming, driver: tokio::spawn(driver) }, Raw { io })
}

/// A frame for a stream.
pub(super) fn frame(kind: Kind, flags: u16, stream: u32, value: u32) -> Header {
    Header { version: 0, kind, flags, stream, value }
}

pub(super) fn data(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
    let header = frame(Kind::Data, flags, stream, u32::try_from(body.len()).unwrap());
    [&header.encode()[..], body].concat()
}

impl Raw {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    pub(super) async fn send_frame(&mut self, header: Header) {
        self.send(&header.encode()).await;
    }

    /// The next frame, whatever it is, or nothing when the session has nothing to say.
    async fn any(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = [0; HEADER];
        let read = tokio::time::timeout(SETTLED, self.io.read_exact(&mut bytes)).await;
        read.ok()?.ok()?;
        let header = Header::decode(bytes);
        let mut body = vec![0; header.body() as usize];
        self.io.read_exact(&mut body).await.unwrap();
        Some((header, body))
    }

    /// The next frame that is not about the engine's measuring of the round trip, which is by the real
    /// clock; pings of it are answered.
    pub(super) async fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            let (header, body) = self.any().await?;
            if header.kind == Kind::Ping && header.has(crate::frame::SYN) {
                self.send_frame(Header::pong(header.value)).await;
                continue;
            }
            return Some((header, body));
        }
    }

    /// All that is on the wire by now.
    pub(super) async fn rest(&mut self) -> Vec<Header> {
        let mut all = Vec::new();
        while let Some((header, _)) = self.next().await {
            all.push(header);
        }
        all
    }
}

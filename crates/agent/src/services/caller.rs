//! The connection of a local program. Unless it is ended in order it is reset, so that nobody takes a part for the whole.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::socket;

/// What a caller gets to hang up after the last byte for them: closed over unread input, TCP would destroy it.
const LINGER: Duration = Duration::from_secs(2);

/// The connection of a local program.
pub(super) struct Caller {
    tcp: TcpStream,
    in_order: bool,
}

impl Caller {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, in_order: false }
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// The first byte of what the caller sends, left where it is. None if they leave, or send nothing for so
    /// long.
    pub(super) async fn first_byte(&self, limit: Duration) -> Option<u8> {
        let mut byte = [0];
        match tokio::time::timeout(limit, self.tcp.peek(&mut byte)).await {
            Ok(Ok(1..)) => byte.first().copied(),
            Ok(Ok(0) | Err(_)) | Err(_) => None,
        }
    }

    /// Closes it as one on which all was said.
    pub(super) async fn hang_up(mut self) {
        self.in_order = true;
        if self.tcp.shutdown().await.is_ok() {
            let mut unread = [0; 4096];
            let emptying = async { while self.tcp.read(&mut unread).await.is_ok_and(|length| length > 0) {} };
            drop(tokio::time::timeout(LINGER, emptying).await);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if !self.in_order {
            socket::reset_on_close(&self.tcp);
        }
    }
}

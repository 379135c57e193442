//! One exec: the WebSocket after the handshake, until the program ends or the client goes.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    channels::{self, Inbound, Outbound, Protocol},
    shell::{Setting, Shell},
};

/// The largest message taken: kubectl sends 32 KiB at most.
const LARGEST_MESSAGE: usize = 1 << 20;
/// How long the client may take to answer the closing handshake.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// An accepted exec whose upgrade is not complete yet.
#[derive(Debug)]
pub(crate) struct Session {
    upgrade: OnUpgrade,
    protocol: Protocol,
    setting: Setting,
}

impl Session {
    pub(super) fn new(upgrade: OnUpgrade, protocol: Protocol, setting: Setting) -> Self {
        Self { upgrade, protocol, setting }
    }

    /// Runs until either side ends it. Must be polled after the connection that was upgraded has ended.
    pub(crate) async fn run(self) {
        let upgraded = match self.upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "an exec was not upgraded"),
        };
        let config =
            WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE)).max_frame_size(Some(LARGEST_MESSAGE));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        if let Err(error) = talk(socket, self.protocol, self.setting).await {
            tracing::debug!(%error, "an exec broke off");
        }
    }
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn talk(mut socket: Socket, protocol: Protocol, setting: Setting) -> Result<(), Error> {
    let (mut shell, greeting) = Shell::start(setting);
    let mut ended = say(&mut socket, greeting).await?;
    while !ended {
        let Some(message) = socket.next().await.transpose()? else { return Ok(()) };
        let outbound = match channels::read(protocol, &payload(message)) {
            Inbound::Stdin(bytes) => shell.input(&bytes),
            Inbound::StdinEnded => shell.end(),
            Inbound::Nothing => continue,
        };
        ended = say(&mut socket, outbound).await?;
    }
    // kubectl takes any other close, or none, for an error.
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    socket.close(Some(goodbye)).await?;
    let drained = async { while let Some(Ok(_late)) = socket.next().await {} };
    if tokio::time::timeout(CLOSE_WITHIN, drained).await.is_err() {
        tracing::debug!("a client did not close its exec in time");
    }
    Ok(())
}

/// Sends what the program says. True when it has ended.
async fn say(socket: &mut Socket, outbound: Vec<Outbound>) -> Result<bool, Error> {
    let ended = outbound.iter().any(|said| matches!(said, Outbound::Exit(_)));
    for said in &outbound {
        socket.feed(Message::Binary(channels::write(said))).await?;
    }
    socket.flush().await?;
    Ok(ended)
}

fn payload(message: Message) -> Bytes {
    match message {
        Message::Binary(bytes) => bytes,
        // Pings are answered by the library; the end of the stream follows a close.
        Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Bytes::new(),
    }
}

//! The control stream: hello, heartbeats, status, go-away. One per session, opened by the agent, before anything else.
//!
//! Run by `session`, which ends with it. One message is written at a time, with a deadline; while one waits for the link
//! nothing is read, so a link that takes nothing ends the session by the same deadline.

use std::{
    io,
    pin::Pin,
    time::{Duration, SystemTime},
};

use moorline_mux::Stream;
use moorline_process::{Phase, Phases};
use moorline_wire::{
    CloseReason, DecodeError, Decoder, GoAway, Heartbeat, HeartbeatAck, Hello, Message, ProtocolError, Refused,
    RenewOrder, RootsOrder, RootsTaken, Welcome, encode,
};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use super::liveness::{Liveness, Verdict};
use crate::{
    health::Health,
    identity::{Files, Identity},
    metrics::Metrics,
};

/// From the end of the TLS handshake to the server's welcome or refusal.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one message may wait for the link.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read at once, in bytes. Messages have a few hundred.
const READ: usize = 4096;

/// An established control stream.
pub(super) struct Control {
    stream: Stream,
    decoder: Decoder,
    buffer: Box<[u8; READ]>,
}

/// Why there is no session although the server was reached.
#[derive(Debug, Error)]
pub(crate) enum HelloError {
    /// The server does not want this agent.
    #[error("the server refused the session: {} ({})", .0.reason, .0.message.escape_debug())]
    Refused(Refused),
    /// No answer.
    #[error("the server did not answer the hello within {0:?}")]
    Timeout(Duration),
    /// The stream ended instead.
    #[error("the connection was closed instead of an answer to the hello")]
    Closed(#[source] io::Error),
    /// Something else than an answer came.
    #[error("the server answered the hello with {0:?}")]
    Unexpected(String),
    /// What came is no message.
    #[error("the server's answer to the hello cannot be read")]
    Decode(#[from] DecodeError),
    /// A version that we did not offer.
    #[error("the server chose protocol version {0}, which this agent does not speak")]
    Version(u32),
}

/// How a control stream ended.
#[derive(Debug, Error)]
pub(super) enum ControlEnd {
    /// Three beats without a word, or without an answer.
    #[error("the server was not heard of for three heartbeats ({0})")]
    Missed(&'static str),
    /// The server finished the stream.
    #[error("the server closed the control stream")]
    Closed,
    /// The stream or its session broke.
    #[error("the control stream broke")]
    Broken(#[source] io::Error),
    /// A message that cannot be read, or has no business here.
    #[error("the server broke the control protocol: {0}")]
    Protocol(String),
}

/// What the control stream needs to know and tell while it runs.
pub(super) struct Surroundings<'a> {
    pub(super) health: watch::Receiver<Health>,
    pub(super) phases: &'a Phases,
    pub(super) metrics: &'a Metrics,
    pub(super) identity: &'a Identity,
    /// Called when the server wants the certificate renewed within this time.
    pub(super) renew: &'a (dyn Fn(Duration) + Send + Sync),
    /// A successor serves: the server is asked to open nothing new here.
    pub(super) retired: &'a CancellationToken,
    /// Called with each go-away of the server.
    pub(super) going_away: &'a (dyn Fn(&GoAway) + Send + Sync),
}

enum Event {
    Read(io::Result<usize>),
    Wake,
    Probed,
    Believed(RootsTaken),
    Leaving,
    Retired,
}

/// Authorities that the server wants believed, one order after the other. To keep them can take longer than heartbeats may
/// stay without an answer: the disk, or the kube-apiserver where the identity is in a Secret, is slow or gone.
struct Believing<'a> {
    identity: &'a Identity,
    under_way: Option<Pin<Box<dyn Future<Output = RootsTaken> + Send + 'a>>>,
    /// The latest order that came meanwhile: it replaces those before.
    next: Option<String>,
}

impl Control {
    /// Says hello on a stream just opened and waits for the welcome.
    pub(super) async fn establish(stream: Stream, hello: Hello) -> Result<(Self, Welcome), HelloError> {
        let offered = hello.protocol_min..=hello.protocol_max;
        let mut control = Self { stream, decoder: Decoder::new(), buffer: Box::new([0; READ]) };
        let exchange = async {
            control.write(&Message::Hello(hello)).await.map_err(HelloError::Closed)?;
            control.first_answer().await
        };
        let answer = match tokio::time::timeout(HELLO_TIMEOUT, exchange).await {
            Ok(answer) => answer?,
            Err(_elapsed) => return Err(HelloError::Timeout(HELLO_TIMEOUT)),
        };
        if let Message::Refused(refused) = answer {
            return Err(HelloError::Refused(refused));
        }
        let Message::Welcome(welcome) = answer else { return Err(HelloError::Unexpected(answer.kind().to_owned())) };
        if !offered.contains(&welcome.protocol) {
            return Err(HelloError::Version(welcome.protocol));
        }
        Ok((control, welcome))
    }

    async fn first_answer(&mut self) -> Result<Message, HelloError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            match self.stream.read(&mut self.buffer[..]).await.map_err(HelloError::Closed)? {
                0 => return Err(HelloError::Closed(io::ErrorKind::UnexpectedEof.into())),
                read => self.decoder.push(self.buffer.get(..read).unwrap_or_default()),
            }
        }
    }

    /// Keeps the session alive until it is not.
    pub(super) async fn run(&mut self, interval: Duration, mut around: Surroundings<'_>) -> ControlEnd {
        let mut liveness = Liveness::new(interval, (Instant::now(), SystemTime::now()), rand::random());
        let mut told_leaving = false;
        let mut believing = Believing { identity: around.identity, under_way: None, next: None };
        around.health.mark_changed();
        loop {
            let event = tokio::select! {
                read = self.stream.read(&mut self.buffer[..]) => Event::Read(read),
                () = tokio::time::sleep_until(liveness.next_wake()) => Event::Wake,
                () = changed(&mut around.health) => Event::Probed,
                taken = believing.done() => Event::Believed(taken),
                () = around.phases.reached(Phase::GoAway), if !told_leaving => Event::Leaving,
                () = around.retired.cancelled(), if !told_leaving => Event::Retired,
            };
            let done = match event {
                Event::Read(Ok(0)) => Err(ControlEnd::Closed),
                Event::Read(Err(error)) => Err(ControlEnd::Broken(error)),
                Event::Read(Ok(read)) => {
                    liveness.heard(Instant::now());
                    self.decoder.push(self.buffer.get(..read).unwrap_or_default());
                    self.take_messages(&mut liveness, &mut believing, &around).await
                }
                Event::Wake => match liveness.wake((Instant::now(), SystemTime::now()), rand::random()) {
                    Verdict::Beat(sequence) => self.say(&Message::Heartbeat(Heartbeat { sequence })).await,
                    Verdict::Wait => Ok(()),
                    Verdict::Dead(how) => Err(ControlEnd::Missed(how)),
                },
                Event::Probed => {
                    let status = around.health.borrow_and_update().status.clone();
                    self.say(&Message::Status(status)).await
                }
                Event::Believed(taken) => self.say(&Message::RootsTaken(taken)).await,
                Event::Leaving => {
                    told_leaving = true;
                    self.say(&leaving(CloseReason::Shutdown, "the agent is shutting down")).await
                }
                Event::Retired => {
                    told_leaving = true;
                    self.say(&leaving(CloseReason::Superseded, "another session of this agent took over")).await
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Ends the stream in order, after the last message, and waits for the server to end it too: what the server still
    /// says is of no use any more. The caller sets the deadline.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        while self.stream.read(&mut self.buffer[..]).await? > 0 {}
        Ok(())
    }

    async fn take_messages(
        &mut self,
        liveness: &mut Liveness,
        believing: &mut Believing<'_>,
        around: &Surroundings<'_>,
    ) -> Result<(), ControlEnd> {
        loop {
            match self.decoder.next() {
                Ok(Some(message)) => self.take(message, liveness, believing, around).await?,
                Ok(None) => return Ok(()),
                Err(error) => return Err(ControlEnd::Protocol(error.to_string())),
            }
        }
    }

    async fn take(
        &mut self,
        message: Message,
        liveness: &mut Liveness,
        believing: &mut Believing<'_>,
        around: &Surroundings<'_>,
    ) -> Result<(), ControlEnd> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is a message is out of place here")]
        match message {
            Message::Heartbeat(Heartbeat { sequence }) => {
                liveness.beaten((Instant::now(), SystemTime::now()));
                self.say(&Message::HeartbeatAck(HeartbeatAck { sequence })).await
            }
            Message::HeartbeatAck(HeartbeatAck { sequence }) => {
                if let Some(took) = liveness.answered(sequence, Instant::now()) {
                    around.metrics.round_trip(took);
                }
                Ok(())
            }
            Message::GoAway(going) => {
                (around.going_away)(&going);
                Ok(())
            }
            Message::Renew(RenewOrder { within_ms }) => {
                (around.renew)(Duration::from_millis(within_ms));
                Ok(())
            }
            Message::Roots(RootsOrder { pem }) => {
                believing.order(pem);
                Ok(())
            }
            Message::Error(error) => {
                tracing::warn!(
                    message = %error.message.escape_debug(),
                    about = error.message_type.as_deref().map(str::escape_debug).map(tracing::field::display),
                    "the server did not understand a control message"
                );
                Ok(())
            }
            Message::Unknown(kind) => {
                let error = ProtocolError { message: "unknown type of message".to_owned(), message_type: Some(kind) };
                self.say(&Message::Error(error)).await
            }
            out_of_place => Err(ControlEnd::Protocol(format!("{:?} at the wrong time", out_of_place.kind()))),
        }
    }

    async fn say(&mut self, message: &Message) -> Result<(), ControlEnd> {
        self.write(message).await.map_err(ControlEnd::Broken)
    }

    async fn write(&mut self, message: &Message) -> io::Result<()> {
        let writing = async {
            self.stream.write_all(&encode(message)).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, writing).await {
            Ok(written) => written,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Believing<'_> {
    fn order(&mut self, pem: String) {
        if self.under_way.is_some() {
            self.next = Some(pem);
        } else {
            self.under_way = Some(Box::pin(believe(pem, self.identity)));
        }
    }

    /// What came of the order under way; never, while there is none. Safe to cancel.
    async fn done(&mut self) -> RootsTaken {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let taken = under_way.await;
        self.under_way = None;
        if let Some(pem) = self.next.take() {
            self.order(pem);
        }
        taken
    }
}

/// A new finding of the prober; never, when the prober is gone.
async fn changed(health: &mut watch::Receiver<Health>) {
    if health.changed().await.is_err() {
        std::future::pending().await
    }
}

fn leaving(reason: CloseReason, message: &str) -> Message {
    Message::GoAway(GoAway { reason, message: message.to_owned(), reconnect_after_ms: None })
}

/// The authorities that are believed now, as they are told to the server.
pub(super) fn believed(identity: &Identity) -> Vec<String> {
    identity.roots().current().authorities().iter().map(|authority| authority.fingerprint.to_string()).collect()
}

/// Believes these authorities from now on, if they can be used and kept.
async fn believe(pem: String, identity: &Identity) -> RootsTaken {
    let changed = identity.change(|before| Files { roots_pem: pem, ..before }).await;
    let error = changed.err().map(|error| error.to_string());
    match &error {
        None => tracing::info!("the server's authorities have changed: the new ones are believed from now on"),
        Some(error) => tracing::warn!(error, "the server's authorities have changed, and cannot be taken over"),
    }
    RootsTaken { roots: believed(identity), error }
}

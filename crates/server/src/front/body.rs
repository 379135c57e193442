//! The bodies that pass through the gateway: streamed, never gathered, without trailers.
//!
//! Made by `forward` and `respond`, read by hyper. A user's trailers would be headers that nothing has checked; the
//! Kubernetes API has none, so none pass, in either direction.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use moorline_mux::Pace;
use thiserror::Error;

use super::{
    account::{Account, End},
    line::Lease,
    vigil::Vigil,
};

/// What a user sends, on its way to the tunnel.
pub(crate) struct RequestBody {
    incoming: Incoming,
    progress: Option<Arc<Progress>>,
}

/// How much of a request's body has gone, so that a slow upload is not taken for a silent kube-apiserver.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// A number that grows with every piece of the body.
    pub(super) fn seen(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// How many bytes have gone.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A piece of so many bytes has gone.
    pub(super) fn moves(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl RequestBody {
    /// The body, seen to move by `progress`.
    pub(crate) fn new(incoming: Incoming, progress: Option<Arc<Progress>>) -> Self {
        Self { incoming, progress }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if let Some(progress) = &self.progress {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            progress.moves(data.map_or(0, Bytes::len));
        }
        // Trailers come last, so leaving them out ends the body.
        Poll::Ready(frame.filter(|frame| frame.as_ref().map_or(true, Frame::is_data)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What a user gets.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one, and a box is an allocation a request")]
pub(crate) enum Body {
    /// A text of our own, or nothing.
    Own(Option<Bytes>),
    /// A response of a cluster.
    Proxied(Proxied),
    /// A response of our own API and pages.
    Control(axum::body::Body),
}

/// A body that came to a bad end. hyper then cuts the connection (or resets the stream), so that what has arrived is
/// not taken for the whole.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    /// The tunnel broke, or the agent cut the response.
    #[error("the response of the cluster was cut")]
    Lost(#[source] hyper::Error),
    /// Nobody read it, and too much was held for such.
    #[error("the response of the cluster was given up, as nobody read it")]
    Shed,
    /// A watch, in the middle of an event for all that is known.
    #[error("this server is about to stop")]
    Draining,
    /// Its user may not go on.
    #[error("the request is not permitted any more")]
    Forbidden,
    /// Our own pages failed.
    #[error("the response cannot be read")]
    Control(#[source] axum::Error),
}

/// The body of a cluster's response, with everything that is held until it ends.
pub(crate) struct Proxied {
    incoming: Incoming,
    /// The last bytes of an announced length, until the end has come, too. In HTTP/2 that is something of its own, which
    /// Go sends behind them; but HTTP/1.1 counts them, asks for nothing more, and lets go of a stream that has not ended.
    /// To reset it and then be sent its end is an error to the library, of which a connection survives a thousand.
    last: Option<Bytes>,
    lease: Option<Lease>,
    account: Option<Account>,
    watch: Option<Watch>,
    vigil: Option<Vigil>,
}

/// A watch ends by itself when this server is about to stop, so that its client resumes elsewhere at once instead of
/// being cut when the patience of the drain is at its end.
pub(super) struct Watch {
    drain: Pin<Box<dyn Future<Output = ()> + Send>>,
    draining: bool,
    /// Events are lines of JSON; other encodings show no border between them.
    lines: bool,
    at_border: bool,
}

impl Body {
    /// The body of a response whose head has just arrived.
    pub(super) fn proxied(
        incoming: Incoming,
        lease: Lease,
        mut account: Account,
        watch: Option<Watch>,
        vigil: Option<Vigil>,
    ) -> Self {
        if incoming.is_end_stream() {
            lease.give_back();
            account.ends(End::Complete);
            return Self::Own(None);
        }
        Self::Proxied(Proxied { incoming, last: None, lease: Some(lease), account: Some(account), watch, vigil })
    }
}

impl Watch {
    /// A watch whose events are lines, or not; `drain` resolves when it is time to go.
    pub(super) fn new(drain: impl Future<Output = ()> + Send + 'static, lines: bool) -> Self {
        Self { drain: Box::pin(drain), draining: false, lines, at_border: true }
    }

    /// Whether all that was passed on are whole events.
    fn is_whole(&self) -> bool {
        self.lines && self.at_border
    }

    /// Whether it ends here, and whether cleanly.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Option<Result<(), BodyError>> {
        self.draining = self.draining || self.drain.as_mut().poll(cx).is_ready();
        match (self.draining, self.at_border, self.lines) {
            (false, ..) | (true, false, true) => None,
            (true, true, true) => Some(Ok(())),
            (true, _, false) => Some(Err(BodyError::Draining)),
        }
    }
}

impl Body {
    /// Ready when it ends although nobody takes anything of it.
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Self::Proxied(proxied) = self else { return Poll::Pending };
        if proxied.poll_forbidden(cx).is_ready() {
            return Poll::Ready(BodyError::Forbidden);
        }
        let Some(lease) = &proxied.lease else { return Poll::Pending };
        ready!(lease.poll_shed(cx));
        proxied.end(End::Lost);
        Poll::Ready(BodyError::Shed)
    }
}

impl Proxied {
    fn end(&mut self, end: End) {
        let lease = self.lease.take();
        if let (End::Complete, Some(lease)) = (end, lease) {
            lease.give_back();
        }
        if let Some(mut account) = self.account.take() {
            account.ends(end);
        }
    }

    /// Ready when its user may not go on.
    fn poll_forbidden(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(vigil) = &mut self.vigil else { return Poll::Pending };
        let _cause = ready!(vigil.as_mut().poll(cx));
        self.vigil = None;
        // Not given back: the agent is to hear at once that it is over.
        self.lease = None;
        self.end(End::Forbidden);
        Poll::Ready(())
    }

    /// The next frame; the last bytes of an announced length only with the end behind them.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let next = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
            let ended = self.incoming.is_end_stream() || !matches!(&next, Some(Ok(frame)) if frame.is_data());
            match (next, self.last.take()) {
                (Some(Err(error)), _) => return Poll::Ready(Some(Err(error))),
                (_, Some(last)) if ended => return Poll::Ready(Some(Ok(Frame::data(last)))),
                // Nothing is in it: more than was announced the library lets nobody send.
                (_, Some(last)) => self.last = Some(last),
                (Some(Ok(frame)), None) => match frame.into_data() {
                    Ok(data) if !ended && self.incoming.size_hint().exact() == Some(0) => self.last = Some(data),
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                (None, None) => return Poll::Ready(None),
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.poll_forbidden(cx).is_ready() {
            // A watch's client asks again, and is told why not.
            let whole = self.watch.as_ref().is_some_and(Watch::is_whole);
            return Poll::Ready((!whole).then_some(Err(BodyError::Forbidden)));
        }
        if let Some(last) = self.watch.as_mut().and_then(|watch| watch.poll_last(cx)) {
            // Not given back: the agent is to hear at once that nobody watches any more.
            self.lease = None;
            self.end(End::Complete);
            return Poll::Ready(last.err().map(Err));
        }
        match ready!(self.poll_whole(cx)) {
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else {
                    self.end(End::Complete);
                    return Poll::Ready(None);
                };
                if let Some(account) = &mut self.account {
                    account.sent(data.len());
                }
                if let (Some(watch), Some(last)) = (&mut self.watch, data.last()) {
                    watch.at_border = *last == b'\n';
                }
                if self.incoming.is_end_stream() {
                    self.end(End::Complete);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.end(End::Lost);
                // A watch has no whole to be cut from: after a whole event it ends as kube-apiserver ends one, and its
                // client resumes from that event instead of listing everything anew.
                let whole = self.watch.as_ref().is_some_and(Watch::is_whole);
                Poll::Ready((!whole).then_some(Err(BodyError::Lost(error))))
            }
            None => {
                self.end(End::Complete);
                Poll::Ready(None)
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Proxied(proxied) => proxied.poll(cx),
            Self::Control(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BodyError::Control)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Proxied(proxied) => proxied.last.is_none() && proxied.incoming.is_end_stream(),
            Self::Control(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Proxied(Proxied { last: Some(last), .. }) => SizeHint::with_exact(last.len() as u64),
            Self::Proxied(proxied) => proxied.incoming.size_hint(),
            Self::Control(body) => body.size_hint(),
        }
    }
}

/// A body that waits for the one connection that it is written to, so that little of it gathers there for a user who
/// does not read; and that ends the connection when what it waits with was given up.
pub(super) struct PacedBody {
    body: Body,
    pace: Arc<Pace>,
}

impl PacedBody {
    pub(super) fn new(body: Body, pace: Arc<Pace>) -> Self {
        Self { body, pace }
    }
}

impl http_body::Body for PacedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.pace.poll_ready(cx).is_pending() {
            return self.body.poll_given_up(cx).map(|error| Some(Err(error)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.pace.gave(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

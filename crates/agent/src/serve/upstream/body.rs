//! The bodies on their way through: never gathered, one frame at a time, as fast as the slower side takes them.
//!
//! Made by `serve` (requests) and `upstream` (answers), polled by hyper. Dropping a body before its end drops what it
//! came from: that is how hanging up travels.

use std::{
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::{Connection, Pool};

/// The body of a request, from the tunnel to the kube-apiserver. Trailers are left out: Kubernetes uses none in
/// requests, and they would be header fields that no check has seen. Or a body of the agent's own, whole.
#[derive(Debug)]
pub(crate) struct RequestBody {
    supply: Supply,
    upload: Upload,
}

/// Where the body of a request comes from.
#[derive(Debug)]
enum Supply {
    /// There is none, or no more.
    Nothing,
    /// The tunnel.
    Tunnel(Incoming),
    /// The agent itself.
    Own(Bytes),
}

/// How far a request's body has come.
#[derive(Clone, Debug)]
pub(super) struct Upload(Option<Arc<AtomicU64>>);

impl Upload {
    /// Bytes taken from the body so far.
    pub(super) fn moved(&self) -> u64 {
        self.0.as_ref().map_or(0, |moved| moved.load(Ordering::Relaxed))
    }
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub(crate) const fn empty() -> Self {
        Self { supply: Supply::Nothing, upload: Upload(None) }
    }

    /// A body of the agent's own.
    pub(crate) fn own(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Self { supply: Supply::Own(bytes), upload: Upload(None) } }
    }

    pub(super) fn upload(&self) -> Upload {
        self.upload.clone()
    }
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self { supply: Supply::Tunnel(incoming), upload: Upload(Some(Arc::default())) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { supply, upload } = &mut *self;
        let incoming = match supply {
            Supply::Nothing => return Poll::Ready(None),
            Supply::Tunnel(incoming) => incoming,
            Supply::Own(bytes) => {
                let bytes = mem::take(bytes);
                *supply = Supply::Nothing;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        };
        loop {
            match std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref()
                        && let Some(moved) = &upload.0
                    {
                        moved.fetch_add(data.remaining() as u64, Ordering::Relaxed);
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                end_or_error => return Poll::Ready(end_or_error),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.supply {
            Supply::Nothing => true,
            Supply::Tunnel(incoming) => incoming.is_end_stream(),
            Supply::Own(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.supply {
            Supply::Nothing => SizeHint::with_exact(0),
            Supply::Tunnel(incoming) => incoming.size_hint(),
            Supply::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// The body of an answer, from the kube-apiserver to the tunnel. Drives the connection it comes from.
pub(crate) struct ResponseBody {
    incoming: Incoming,
    ended: bool,
    origin: Origin,
}

enum Origin {
    /// The connection is put away for another request once the answer is read.
    Kept(Connection, Arc<Pool>),
    /// The connection goes down with the answer.
    Once(Connection),
    /// Put away already.
    Gone,
}

impl ResponseBody {
    pub(super) fn kept(incoming: Incoming, connection: Connection, pool: &Arc<Pool>) -> Self {
        Self { incoming, ended: false, origin: Origin::Kept(connection, Arc::clone(pool)) }
    }

    pub(super) fn once(incoming: Incoming, connection: Connection) -> Self {
        Self { incoming, ended: false, origin: Origin::Once(connection) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        // Asked first, so that the connection finds somebody who wants the frame that it reads.
        let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
        if polled.is_pending() {
            if let Origin::Kept(connection, _) | Origin::Once(connection) = &mut this.origin {
                connection.drive(cx);
            }
            polled = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        let next = std::task::ready!(polled);
        this.ended = next.is_none();
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.is_end_stream()
            && let Origin::Kept(connection, pool) = mem::replace(&mut self.origin, Origin::Gone)
        {
            pool.put(connection);
        }
    }
}

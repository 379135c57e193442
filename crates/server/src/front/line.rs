//! What requests of one session go by: the streams of our own agent, or the channels of Calico's Guardian.
//!
//! Made by admission, one for each session; `forward` asks it for a [`Lease`], which a response's body holds to its end.
//! A session has one of the two for life, by the dialect of the certificate that brought it in.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::TrySendError};
use moorline_mtls::HandshakeError;
use moorline_mux::{Handle, OpenError};
use thiserror::Error;

use super::{
    body::RequestBody,
    guardian::{
        channels::{Channels, Own, Share},
        request::{for_http1, for_http2},
    },
    pool::{self, Pool},
};

/// The way of one session's requests.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    /// Streams with one request at a time.
    Moorline(Arc<Pool>),
    /// TLS inside the streams, and many requests at a time.
    Guardian(Arc<Channels>),
}

/// What carries one request. Dropping it ends the request, whatever runs of it.
pub(crate) enum Lease {
    /// A stream of our own agent's.
    Stream(pool::Lease),
    /// A place on a stream that carries many.
    Share(Share),
    /// A stream of Guardian's for this request alone.
    Own(Own),
}

/// Why no stream could be had.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    /// The session opens none.
    #[error("no stream: {0}")]
    Open(OpenError),
    /// As many requests run as the session carries.
    #[error("the session carries as many requests as it may")]
    Full,
    /// TLS inside a stream failed.
    #[error("no TLS inside a new stream: {0}")]
    Tls(#[source] HandshakeError),
    /// HTTP failed before its first byte.
    #[error("no connection on a new stream")]
    Http(#[source] hyper::Error),
}

impl Line {
    /// The session's handle.
    pub(super) fn handle(&self) -> &Handle {
        match self {
            Self::Moorline(pool) => pool.handle(),
            Self::Guardian(channels) => channels.handle(),
        }
    }
}

impl Lease {
    /// Sends the request.
    ///
    /// # Errors
    /// With the request where none of it was sent.
    pub(super) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Stream(stream) => stream.sender().try_send_request(request).await,
            Self::Share(share) => {
                for_http2(&mut request);
                share.sender().try_send_request(request).await
            }
            Self::Own(own) => {
                for_http1(&mut request);
                own.sender().try_send_request(request).await
            }
        }
    }

    /// The response was read to its end.
    pub(super) fn give_back(self) {
        match self {
            Self::Stream(stream) => stream.give_back(),
            Self::Share(_) | Self::Own(_) => {}
        }
    }

    /// Ready when the stream was reset here, because nobody took what it brought and too much was held for all such. What
    /// carries many requests is always read, and each of them has a bounded window.
    pub(super) fn poll_shed(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Stream(stream) => stream.poll_shed(cx),
            Self::Own(own) => own.poll_shed(cx),
            Self::Share(_) => Poll::Pending,
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "Stream",
            Self::Share(_) => "Share",
            Self::Own(_) => "Own",
        })
    }
}

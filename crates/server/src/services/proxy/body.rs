//! The body of a service's answer: streamed, without trailers, with everything that is held until its end.
//!
//! Made by `proxy`, read by hyper at the pace of the program.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::upstream::Lease;
use crate::{audit::End, services::visit::Visit};

/// The body of a service's answer.
pub(super) struct Passing {
    incoming: Incoming,
    held: Option<(Lease, Visit)>,
    withdrawn: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// A body that came to a bad end. hyper then cuts the connection (or resets the stream), so that what has arrived is
/// not taken for the whole.
#[derive(Debug, Error)]
pub(super) enum PassingError {
    /// The service cut it.
    #[error("the answer of the service was cut")]
    Lost(#[source] hyper::Error),
    /// The service is not for this cluster any more.
    #[error("the service is not for this cluster any more")]
    Withdrawn,
}

impl Passing {
    /// A body of which the head has just arrived; it ends when `withdrawn` resolves.
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        visit: Visit,
        withdrawn: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let mut passing = Self { incoming, held: Some((lease, visit)), withdrawn: Box::pin(withdrawn) };
        if passing.incoming.is_end_stream() {
            passing.ends(End::Complete);
        }
        passing
    }

    fn ends(&mut self, end: End) {
        let Some((lease, mut visit)) = self.held.take() else { return };
        visit.ends(end);
        if end == End::Complete {
            lease.give_back();
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = PassingError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, PassingError>>> {
        if self.held.is_some() && self.withdrawn.as_mut().poll(cx).is_ready() {
            self.ends(End::Forbidden);
            return Poll::Ready(Some(Err(PassingError::Withdrawn)));
        }
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else {
                    // Trailers come last, so leaving them out ends the body.
                    self.ends(End::Complete);
                    return Poll::Ready(None);
                };
                if let Some((_, visit)) = &mut self.held {
                    visit.carried().down(data.len());
                }
                if self.incoming.is_end_stream() {
                    self.ends(End::Complete);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.ends(End::Lost);
                Poll::Ready(Some(Err(PassingError::Lost(error))))
            }
            None => {
                self.ends(End::Complete);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

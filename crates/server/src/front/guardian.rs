//! Requests to clusters whose agent is Calico's open-source Guardian, which was made for another server.
//!
//! `forward` comes here for sessions of that dialect. What Guardian does, as far as it matters here, from its source
//! (`projectcalico/calico`, Apache 2.0, versions 3.30 to 3.32):
//! - it is a TLS *server* on every stream that is opened to it, and shows the certificate that it dialled with;
//! - it speaks HTTP/2 to whoever offers it, and HTTP/1.1 to whoever offers no protocol at all, which upgrades need;
//! - it passes on what begins with `/api/` or `/apis/`, with its own token and with whatever `Impersonate-*` it is sent.
//!
//! So who a request is from is decided here and nowhere else: [`request`] is the only maker of requests for it.

pub(crate) mod channels;
pub(super) mod openapi;
pub(crate) mod places;
pub(super) mod refusals;
pub(crate) mod request;
mod sacrifice;

pub(super) use request::{Prepared, Refused, failure_of, prepare};

//! Who did what where: the shape of an audit event, what must not be in it, and which requests leave one.
//!
//! Events have the shape of Kubernetes' `audit.k8s.io/v1`, and the policy its grammar, so that tools made for
//! kube-apiserver's audit log read ours. Pure: the server brings the facts, the clock and the places to write to.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::string_slice
    )
)]

mod event;
mod micro_time;
mod policy;
mod redact;
mod words;

pub use event::{Annotations, Event, EventList, ObjectRef, ResponseStatus, User};
pub use micro_time::MicroTime;
pub use policy::{Policy, Question, Ruling};
pub use redact::{REDACTED, redact_uri};
pub use words::{Level, Stage, Stages};

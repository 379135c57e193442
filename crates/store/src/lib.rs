//! The embedded cluster store: one durable file, no other service.
//!
//! Called by the server, through a thread kept for blocking work where it writes: every change is on the disk before
//! the call comes back. It touches the one file that it is told, and nothing else.

mod embedded;
mod error;
mod open;

pub use embedded::Embedded;
pub use error::{CreateError, OpenError, StoreError, UpdateError};

//! Signs certificates: the only crate in which the key of a certificate authority is a value.
//!
//! Called by the server (which keeps the authorities of its state directory) and by tests. No clock (`now` is an
//! argument), no files, no network. Every profile is written out here; no default of the signing library is used.

mod authority;
mod profile;

pub use authority::{Authority, AuthorityError, Certified, IssueError, Issued};
pub use profile::{CLOCK_SKEW, SubjectName};
pub use zeroize::Zeroizing;

//! Names and value types that every part of Moorline speaks.
//!
//! Everything here is a value: no clock, no randomness, no files, no network. Whatever a value promises (a cluster name
//! is a DNS label, an identity has a user) is checked once, by its only constructor, and holds from then on.

mod cluster;
mod cluster_name;
mod finding;
mod fingerprint;
mod identity;
mod ids;
mod join_token;
mod labels;
mod status;
mod timestamp;

pub use cluster::{ActiveFingerprint, Attestation, ClusterRecord, Dialect, MAX_RETIRED};
pub use cluster_name::{ClusterName, InvalidClusterName};
pub use finding::{Finding, Report, Verdict};
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use identity::{Identity, IdentityPart, InvalidIdentity, limits as identity_limits};
pub use ids::{ClusterUid, InvalidId, RequestId, SessionId};
pub use join_token::{JoinToken, MAX_JOIN_TOKENS};
pub use labels::{InvalidLabels, check_labels};
pub use status::{Reason, Status, StatusCause, StatusDetails};
pub use timestamp::{InvalidTimestamp, Timestamp};

//! Asks the management cluster's Kubernetes who somebody is (`TokenReview`) and what they may do
//! (`SubjectAccessReview`), and keeps clusters there (`ManagedCluster`). The only door to kube-rs.
//!
//! The server makes a [`Connection`] and puts [`TokenReviews`] and [`AccessReviews`] where `access` asks for an
//! authenticator and an authorizer. This crate holds no policy: it carries questions there and answers back, remembers
//! them for a short while, and turns everything that is no answer into "unavailable". It may open connections to that
//! one kube-apiserver, and to a [`Webhook`] that is described as one, and read what its configuration names, and nothing
//! else.

mod access_reviews;
mod cache;
mod call;
mod clusters;
mod connection;
mod token_reviews;
mod webhook;

#[cfg(test)]
mod tests;

pub use access_reviews::AccessReviews;
pub use cache::Lives;
pub use clusters::{
    Change, ClusterObject, ClusterObjects, Identified, Notice, ObjectError, Observed, ObservedCondition, Seen,
    managed_cluster_definition,
};
pub use connection::{Connection, ConnectionError};
pub use token_reviews::TokenReviews;
pub use webhook::{PostError, Webhook};

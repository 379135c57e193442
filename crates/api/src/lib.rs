//! The management API contract: paths, types and error bodies.
//!
//! The server answers with these types, and whoever is not a `curl` asks with them. Objects have Kubernetes' shape, so
//! that `kubectl`'s habits and tools apply. Every error is a Kubernetes `Status` ([`moorline_model::Status`]).

mod authorities;
mod cluster;
mod enrolment;
mod event;
mod join_token;
pub mod paths;
mod review;
mod secret;
mod server;
mod user;

pub use authorities::{AuthoritiesStatus, Authority, BehindCluster, FinishRotation};
pub use cluster::{
    Certificate, Condition, ConditionStatus, ListMeta, ManagedCluster, ManagedClusterList, ManagedClusterSpec,
    ManagedClusterStatus, ObjectMeta, Session, condition,
};
pub use enrolment::{
    BroughtCluster, CreateCluster, CreatedCluster, Enrolled, Enrolment, JoinableCluster, MigrateCluster,
};
pub use event::{ClusterEvent, ClusterEventList, EventType, InvolvedObject};
pub use join_token::{
    CreateJoinToken, CreatedJoinToken, JoinToken, JoinTokenList, JoinTokenMeta, JoinTokenPhase, JoinTokenSpec,
    JoinTokenStatus,
};
pub use review::{AccessAnswer, AccessQuestion};
pub use secret::Secret;
pub use server::{ServerStatus, Version};
pub use user::{CreateUser, CreatedUser, RevokedUser, User, UserList, UserMeta, UserSpec};

/// The API group of our objects, unless the server is configured with another.
pub const API_GROUP: &str = "moorline.io";

/// The version of our objects in that group.
pub const VERSION: &str = "v1alpha1";

/// The `apiVersion` of our objects.
pub const API_VERSION: &str = "moorline.io/v1alpha1";

//! Clusters as `ManagedCluster` objects of the management cluster.

mod definition;
mod resource;

pub use definition::managed_cluster_definition;

//! Real Kubernetes control planes on loopback for the tests: etcd, kube-apiserver and a small kubelet,
//! with real kubectl programs of several versions in front, and Dex as an issuer of tokens.
//!
//! Called by the real-Kubernetes tests only. Starts programs, each bound to the life of this process;
//! writes to a directory of its own below the system's temporary directory and nowhere else.

mod api;
mod certificates;
mod control_plane;
mod dex;
mod kubeconfig;
mod node;
mod pod;
mod program;
mod rights;
mod tools;

pub use api::{Answer, ApiClient, ApiSession};
pub use certificates::ClientCertificate;
pub use control_plane::{ControlPlane, Options};
pub use dex::{Dex, DexOptions, Person};
pub use kubeconfig::{Credential, write as write_kubeconfig};
pub use node::{Node, PodSpec};
pub use pod::{Image, Pod, free_port};
pub(crate) use program::Program;
pub use tools::{Kubectl, Missing, Tools, say_skipped};

//! Real Kubernetes: real etcd, real kube-apiservers, real kubectl programs of several ages.
//!
//! `scenarios` says what kubectl must be able to do, over any kubeconfig. `direct` plays them straight to a
//! kube-apiserver: that proves the rig.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod audit;
mod direct;
mod doors;
mod kube;
mod rig;
mod scenarios;
mod stage;
mod tunnel;

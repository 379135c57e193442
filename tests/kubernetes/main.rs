//! Real Kubernetes: real etcd, real kube-apiservers, real kubectl programs of several ages.
//!
//! `scenarios` says what kubectl must be able to do, over any kubeconfig. `direct` plays them straight to a
//! kube-apiserver, which proves the rig; `tunnel`, `header` and `certificate` play them through Moorline, in which a
//! cluster is named and a caller known in different ways, `guardian` where the agent is Calico's. `doors` and `outage` show what only the whole way has;
//! `management` adds a control plane that says who the callers are and which clusters they may reach, `issuer` people
//! with tokens of a real Dex.
//! `store` keeps the clusters there as objects.
//! `rules` asks the embedded policy and kube-apiserver the same. `least` gives agents the rights that are rendered for
//! them and no more. `deploy` holds manifests against a kube-apiserver and a policy check.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod audit;
mod certificate;
mod connection;
mod deploy;
mod direct;
mod doors;
mod guardian;
mod header;
mod issuer;
mod kube;
mod least;
mod management;
mod outage;
mod rig;
mod rules;
mod scenarios;
mod stage;
mod store;
mod tunnel;

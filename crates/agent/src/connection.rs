//! The resource `ManagementClusterConnection`: where the management cluster is, read from the managed cluster itself and
//! followed while the agent runs, and how the agent stands with it, written into its condition `Available`.
//!
//! Made by the configuration, spawned by `app` as two tasks: [`Reader`] watches the resource and publishes the way that
//! it names to `tunnel`; [`Reporter`] writes the condition when there is something new to say. What the agent was told
//! last stays in use while the resource is missing, broken, or cannot be read.

mod condition;
mod read;
mod report;
mod resource;

use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use read::Reader;
pub(crate) use report::Reporter;

use crate::{
    kubernetes::{Client, Object},
    metrics::Metrics,
    tunnel::{Address, Route, Router, Standing},
};

/// Who says where the server is.
#[derive(Debug)]
pub(crate) struct Config {
    /// The way in use, for the tunnel; begins with the address of the flag, if there is one.
    pub(crate) routes: watch::Sender<Option<Arc<Route>>>,
    /// Makes ways of addresses.
    pub(crate) router: Router,
    /// The resource that is followed, if any.
    pub(crate) resource: Option<Object>,
}

/// What is known of the resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The object as the kube-apiserver last told it; none while there is none.
    object: Option<resource::Connection>,
    /// The number of the way that it asks for.
    route: u64,
    /// Why it asks for no way, where it does not.
    invalid: Option<String>,
    /// The address in use instead, where it does not.
    instead: Option<Address>,
}

/// What reader and reporter share.
type Shared = Arc<watch::Sender<Seen>>;

/// Reader and reporter of the resource, if there is one to follow. Nothing is asked yet.
pub(crate) fn follow(
    config: Config,
    client: &Client,
    (standing, unkept): (watch::Receiver<Standing>, watch::Receiver<Option<String>>),
    metrics: &Arc<Metrics>,
) -> Option<(Reader, Reporter)> {
    let resource = config.resource.clone()?;
    let seen = Shared::default();
    let reporter =
        Reporter::new(client.clone(), resource.clone(), Arc::clone(&seen), (standing, unkept), Arc::clone(metrics));
    Some((Reader::new(client.clone(), resource, config, seen, Arc::clone(metrics)), reporter))
}

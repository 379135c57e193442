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
    kubernetes::{CallError, Client, Object},
    metrics::Metrics,
    tunnel::{Address, Route, Router, Standing, Trust},
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

/// What a resource names, at a glance.
#[derive(Debug)]
pub(crate) enum Named {
    /// It does not exist.
    Missing,
    /// Nothing of use, and why.
    Invalid(String),
    /// A server.
    Way(Address, Trust),
}

/// Looks at the resource once.
///
/// # Errors
/// [`CallError`].
pub(crate) async fn named(client: &Client, resource: &Object) -> Result<Named, CallError> {
    let listed = client.list::<resource::Connection>(resource).await?;
    let found = listed.items.into_iter().find(|item| item.metadata.name == resource.name.as_str());
    Ok(match found.map(|object| object.wanted()) {
        None => Named::Missing,
        Some(Err(invalid)) => Named::Invalid(invalid.to_string()),
        Some(Ok((address, trust))) => Named::Way(address, trust),
    })
}

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

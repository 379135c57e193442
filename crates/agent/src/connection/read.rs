//! Follows the resource: a list, then a watch from there, again and again; nothing that goes wrong is more than a pause.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use tokio::time::Instant;

use super::{Config, Shared, resource::Connection};
use crate::{
    kubernetes::{CallError, Client, Event, Object},
    metrics::Metrics,
    serve::Chain,
    tunnel::{Address, Trust},
};

/// The pause after a first failure, and after many. Jitter takes off up to half.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Between a watch that ended in order and the next; a kube-apiserver that ends each at once is not hammered.
const BREATH: Duration = Duration::from_millis(500);

/// A watch that lasted this long proves that watching works.
const LASTED: Duration = Duration::from_secs(10);

/// Watches the resource and publishes the way that it names.
pub(crate) struct Reader {
    client: Client,
    resource: Object,
    config: Config,
    seen: Shared,
    metrics: Arc<Metrics>,
    /// The last trouble, so that it is told once.
    told: Option<String>,
    /// Whether it was tried to make a resource that was missing.
    asked: bool,
}

/// How a round of list and watch ended.
enum End {
    /// As watches do.
    Ordinary,
    /// The version is too old for a watch: list anew.
    Outdated,
}

impl Reader {
    /// Asks nobody yet.
    pub(crate) fn new(client: Client, resource: Object, config: Config, seen: Shared, metrics: Arc<Metrics>) -> Self {
        Self { client, resource, config, seen, metrics, told: None, asked: false }
    }

    /// Follows for ever. To be spawned by the caller.
    pub(crate) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let rest = match self.round().await {
                Ok(End::Ordinary | End::Outdated) => BREATH,
                Err(error) => {
                    if began.elapsed() >= LASTED {
                        pause = FIRST_PAUSE;
                    }
                    self.trouble(&error);
                    let rest = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    rest
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// One list, and watches from there for as long as their versions are known.
    async fn round(&mut self) -> Result<End, CallError> {
        let name = self.resource.name.clone();
        let listed = self.client.list::<Connection>(&self.resource).await?;
        let mut version = listed.metadata.resource_version;
        let found = listed.items.into_iter().find(|item| item.metadata.name == name.as_str());
        if found.is_none() {
            self.introduce().await;
        }
        self.take(found);
        self.metrics.connection_read(true);
        if self.told.take().is_some() {
            tracing::info!(resource = %self.resource, "the connection resource can be read again");
        }
        loop {
            let mut watch = self.client.watch::<Connection>(&self.resource, &version).await?;
            let began = Instant::now();
            loop {
                match watch.next().await {
                    Ok(Some((event, at))) => {
                        match event {
                            Event::Applied(object) if object.metadata.name == name.as_str() => self.take(Some(object)),
                            Event::Deleted => self.take(None),
                            Event::Applied(_) | Event::Bookmark => {}
                        }
                        if !at.is_empty() {
                            version = at;
                        }
                    }
                    Ok(None) if began.elapsed() >= LASTED => break,
                    Ok(None) => return Ok(End::Ordinary),
                    Err(CallError::Gone) => return Ok(End::Outdated),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Makes the resource where there was none since this process began, with the address of the flag: one file with the
    /// definition and the object cannot be applied at once, since kubectl wants to know all kinds before it begins. One
    /// that somebody deletes later stays deleted for as long as this process lives.
    async fn introduce(&mut self) {
        let Some(route) = self.config.routes.borrow().clone().filter(|_| !std::mem::replace(&mut self.asked, true))
        else {
            return;
        };
        match self.client.create(&self.resource, &Connection::to_make(&self.resource, &route.address)).await {
            Ok(()) => {
                tracing::info!(resource = %self.resource, server = %route.address, "made the connection resource")
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => tracing::warn!(
                resource = %self.resource,
                remedy = "make it by hand, or give the agent's service account the right to create it",
                "the connection resource is missing and cannot be made: {}", Chain(&error)
            ),
        }
    }

    /// What is told stays: a resource that is gone takes no address with it.
    fn take(&self, object: Option<Connection>) {
        let before = self.config.routes.borrow().clone();
        let (mut invalid, mut route) = (None, before.as_ref().map_or(0, |route| route.number));
        match object.as_ref().map(Connection::wanted) {
            None => {
                if self.seen.borrow().object.is_some() {
                    tracing::warn!(resource = %self.resource, "the connection resource is gone; what it said last stays in use");
                }
            }
            Some(Err(error)) => invalid = Some(error.to_string()),
            Some(Ok((address, trust))) if before.as_ref().is_some_and(|route| route.leads_to(&address, trust)) => {}
            Some(Ok((address, trust))) => match self.go(route + 1, address, trust) {
                Ok(()) => route += 1,
                Err(error) => invalid = Some(error),
            },
        }
        if let Some(invalid) = &invalid
            && self.seen.borrow().invalid.as_ref() != Some(invalid)
        {
            tracing::warn!(resource = %self.resource, "the connection resource cannot be used: {invalid}");
        }
        let instead = before.filter(|_| invalid.is_some()).map(|route| route.address.clone());
        self.seen.send_modify(|seen| *seen = super::Seen { object, route, invalid, instead });
    }

    fn go(&self, number: u64, address: Address, trust: Trust) -> Result<(), String> {
        let route = self.config.router.route(number, address, trust).map_err(|error| error.to_string())?;
        tracing::info!(resource = %self.resource, server = %route.address, ?trust, "the management cluster is to be reached here");
        self.config.routes.send_replace(Some(Arc::new(route)));
        Ok(())
    }

    fn trouble(&mut self, error: &CallError) {
        self.metrics.connection_read(false);
        let text = Chain(error).to_string();
        if self.told.as_ref() != Some(&text) {
            let remedy = if error.is_not_found() {
                "install the CustomResourceDefinition, or leave out --management-cluster-connection"
            } else if error.is_forbidden() {
                "give the agent's service account get, list and watch on it"
            } else {
                "nothing to do here if the kube-apiserver comes back"
            };
            tracing::warn!(resource = %self.resource, remedy, "the connection resource cannot be read: {text}");
            self.told = Some(text);
        }
    }
}

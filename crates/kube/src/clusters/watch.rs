//! What others do with `ManagedCluster` objects, as it happens.
//!
//! The listing, the watch with bookmarks, the beginning anew when a resource version has expired and the waiting longer
//! each time are kube-rs'. What it meets on the way is told and never ends the stream.

use futures_util::{Stream, StreamExt as _};
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::{WatchStreamExt as _, watcher},
};

use super::{ClusterObject, ClusterObjects, ObjectError, failure, resource::ManagedCluster};

/// How long one watch lasts before it is taken up again, in seconds. One that is silent for longer than this and a
/// little is dead.
const WATCH_SECONDS: u32 = 120;

/// What is told of the objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Everything is listed from here on, until [`Change::Listed`].
    Listing,
    /// One of those that are listed.
    Found(Seen),
    /// All have been listed: what was not found is not there.
    Listed,
    /// One was made or changed.
    Applied(Seen),
    /// One was deleted, or begins to be.
    Deleted {
        /// Its name.
        name: String,
        /// Its own uid.
        uid: String,
    },
    /// The kube-apiserver cannot be asked, and why. It is asked again.
    Broken(String),
}

/// An object that was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A cluster.
    Cluster(Box<ClusterObject>),
    /// One that is no cluster.
    Unusable {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
}

impl ClusterObjects {
    /// Follows the objects. The stream never ends.
    pub fn watch(&self) -> impl Stream<Item = Change> + Send + use<> {
        let objects: Api<DeserializeGuard<ManagedCluster>> = Api::all(self.connection.client.clone());
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        watcher(objects, config).default_backoff().filter_map(async |told| match told {
            Ok(event) => change(event),
            Err(error) => Some(Change::Broken(words(error))),
        })
    }
}

fn change(event: watcher::Event<DeserializeGuard<ManagedCluster>>) -> Option<Change> {
    match event {
        watcher::Event::Init => Some(Change::Listing),
        watcher::Event::InitDone => Some(Change::Listed),
        // One that is being deleted counts as deleted, whatever its finalizers wait for.
        watcher::Event::InitApply(DeserializeGuard(Ok(object))) if is_going(&object) => None,
        watcher::Event::Apply(DeserializeGuard(Ok(object))) if is_going(&object) => Some(deleted(object)),
        watcher::Event::InitApply(object) => Some(Change::Found(seen(object))),
        watcher::Event::Apply(object) => Some(Change::Applied(seen(object))),
        watcher::Event::Delete(DeserializeGuard(Ok(object))) => Some(deleted(object)),
        watcher::Event::Delete(DeserializeGuard(Err(object))) => Some(Change::Deleted {
            name: object.metadata.name.unwrap_or_default(),
            uid: object.metadata.uid.unwrap_or_default(),
        }),
    }
}

fn is_going(object: &ManagedCluster) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

fn deleted(object: ManagedCluster) -> Change {
    Change::Deleted { name: object.metadata.name.unwrap_or_default(), uid: object.metadata.uid.unwrap_or_default() }
}

fn seen(DeserializeGuard(object): DeserializeGuard<ManagedCluster>) -> Seen {
    let (name, read) = match object {
        Ok(object) => (object.metadata.name.clone(), ClusterObject::read(&object)),
        Err(invalid) => (invalid.metadata.name.clone(), Err(invalid.error)),
    };
    match read {
        Ok(object) => Seen::Cluster(Box::new(object)),
        Err(why) => Seen::Unusable { name: name.unwrap_or_default(), why },
    }
}

fn words(error: watcher::Error) -> String {
    let cause = match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => failure(&cause),
        watcher::Error::WatchError(status) => failure(&kube::Error::Api(status)),
        watcher::Error::NoResourceVersion => ObjectError::Unavailable("an answer has no resource version".to_owned()),
    };
    match cause {
        ObjectError::Gone => "the management cluster does not know the kind ManagedCluster (moorline.io/v1alpha1): \
                              apply deploy/crds there"
            .to_owned(),
        ObjectError::Exists | ObjectError::Conflict | ObjectError::Unavailable(_) | ObjectError::Refused(_) => {
            cause.to_string()
        }
    }
}

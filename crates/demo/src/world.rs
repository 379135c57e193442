//! Everything there is in the demo, with a version for each change and a bounded memory of the last ones.
//!
//! Written by `life`, read by everything else. One short lock, never held across an await.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kind::Kind;

/// Changes remembered for watches that begin in the past. A few minutes at the usual pace; older ones list again.
const REMEMBERED: usize = 512;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Added,
    Modified,
    Deleted,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) kind: Kind,
    pub(crate) what: What,
    /// The object after the change; for a deletion its last state, with the version of the deletion.
    pub(crate) object: Arc<Value>,
    /// The object before a modification.
    pub(crate) before: Option<Arc<Value>>,
}

/// The asked version is no longer, or not yet, known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) oldest: u64,
}

#[derive(Debug)]
pub(crate) struct World {
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    version: u64,
    objects: BTreeMap<(Kind, String, String), Arc<Value>>,
    changes: VecDeque<Change>,
    /// The version before the oldest remembered change.
    oldest: u64,
}

impl World {
    /// An empty world whose versions begin above `version`.
    pub(crate) fn new(version: u64) -> Self {
        let inner = Inner { version, objects: BTreeMap::new(), changes: VecDeque::new(), oldest: version };
        Self { inner: Mutex::new(inner), version: watch::Sender::new(version) }
    }

    /// Adds or replaces an object; its `resourceVersion` is written here.
    pub(crate) fn put(&self, kind: Kind, mut object: Value) -> Arc<Value> {
        let mut inner = self.locked();
        let version = inner.stamp(&mut object);
        let object = Arc::new(object);
        let before = inner.objects.insert(key(kind, &object), Arc::clone(&object));
        let what = if before.is_some() { What::Modified } else { What::Added };
        inner.remember(Change { version, kind, what, object: Arc::clone(&object), before });
        drop(inner);
        self.version.send_replace(version);
        object
    }

    pub(crate) fn remove(&self, kind: Kind, namespace: &str, name: &str) {
        let mut inner = self.locked();
        let Some(object) = inner.objects.remove(&(kind, namespace.to_owned(), name.to_owned())) else { return };
        let mut last = Value::clone(&object);
        let version = inner.stamp(&mut last);
        inner.remember(Change { version, kind, what: What::Deleted, object: Arc::new(last), before: None });
        drop(inner);
        self.version.send_replace(version);
    }

    pub(crate) fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.locked().objects.get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects of a kind, of one namespace or of all, and the version of that list.
    pub(crate) fn list(&self, kind: Kind, namespace: Option<&str>) -> (u64, Vec<Arc<Value>>) {
        let inner = self.locked();
        let objects = inner
            .objects
            .iter()
            .filter(|((of, within, _), _)| *of == kind && namespace.is_none_or(|namespace| namespace == within))
            .map(|(_, object)| Arc::clone(object))
            .collect();
        (inner.version, objects)
    }

    /// The changes after `version`, and the version that they lead to.
    pub(crate) fn since(&self, version: u64) -> Result<(u64, Vec<Change>), Forgotten> {
        let inner = self.locked();
        if version < inner.oldest || version > inner.version {
            return Err(Forgotten { oldest: inner.oldest });
        }
        Ok((inner.version, inner.changes.iter().filter(|change| change.version > version).cloned().collect()))
    }

    /// Tells of each new version.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn stamp(&mut self, object: &mut Value) -> u64 {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.version
    }

    fn remember(&mut self, change: Change) {
        if self.changes.len() == REMEMBERED
            && let Some(oldest) = self.changes.pop_front()
        {
            self.oldest = oldest.version;
        }
        self.changes.push_back(change);
    }
}

fn key(kind: Kind, object: &Value) -> (Kind, String, String) {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (kind, text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "n"}})
    }

    #[test]
    fn changes_are_told_in_order_with_their_versions() {
        let world = World::new(100);
        world.put(Kind::Pod, object("a"));
        world.put(Kind::Pod, object("a"));
        world.remove(Kind::Pod, "n", "a");
        let (version, changes) = world.since(100).unwrap();
        assert_eq!(version, 103);
        let told: Vec<_> = changes.iter().map(|change| (change.version, change.what)).collect();
        assert_eq!(told, [(101, What::Added), (102, What::Modified), (103, What::Deleted)]);
        assert_eq!(changes[2].object["metadata"]["resourceVersion"], "103");
        assert!(world.list(Kind::Pod, None).1.is_empty());
    }

    #[test]
    fn what_is_forgotten_or_unheard_of_is_said() {
        let world = World::new(0);
        for _ in 0..=REMEMBERED {
            world.put(Kind::Pod, object("a"));
        }
        assert_eq!(world.since(0).unwrap_err(), Forgotten { oldest: 1 });
        assert!(world.since(1).is_ok());
        assert!(world.since(10_000).is_err());
    }
}

//! Takes what others do with the objects of the Kubernetes store into the registry: what is made by kubectl is a
//! cluster within a moment, what is deleted loses its sessions at once.
//!
//! Run by the composition root for as long as the process lives. While the kube-apiserver is away everything stays as
//! it was.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use moorline_kube::{Change, ClusterObject, ClusterObjects, Seen};
use moorline_model::{ClusterName, ClusterRecord, Fingerprint};
use tokio::sync::watch;

use super::{Clusters, Shared, brought, observe::Shown, store::objects::version};

/// How often in a row it is told that the kube-apiserver is away: the first time, and then each so manieth.
const TELL_EACH: u32 = 10;

/// Follows the objects for ever. `complete` becomes true when all of them have been taken in once; `shown` learns what
/// the status of those that are listed shows.
pub(crate) async fn follow(clusters: &Clusters, objects: ClusterObjects, complete: watch::Sender<bool>, shown: Shown) {
    let shared = &clusters.shared;
    let mut changes = std::pin::pin!(objects.watch());
    let mut broken = 0_u32;
    let mut found = Vec::new();
    while let Some(change) = changes.next().await {
        if let Change::Broken(why) = &change {
            if broken.is_multiple_of(TELL_EACH) {
                tracing::warn!(why, "the clusters of the management cluster cannot be followed; trying again");
            }
            broken = broken.saturating_add(1);
            continue;
        }
        let _one_at_a_time = shared.turn().await;
        match change {
            Change::Broken(_) => {}
            Change::Listing => {
                found.clear();
                shared.known().listing();
            }
            Change::Found(seen) => found.push(seen),
            Change::Applied(seen) => shared.take_in(seen, None, false),
            Change::Deleted { name, uid } => shared.let_go(&name, &uid),
            Change::Listed => {
                let first = !*complete.borrow();
                let all = std::mem::take(&mut found);
                let claims = Claims::of(&all);
                for seen in all {
                    if let Seen::Cluster(object) = &seen {
                        shown.listed(&object.record.name, &object.identified.uid, object.observed.clone());
                    }
                    shared.take_in(seen, Some(&claims), first);
                }
                let gone = shared.known().listed();
                gone.iter().for_each(|name| shared.remove(name, "it is not among the objects any more"));
                if !complete.send_replace(true) || broken > 0 {
                    let clusters = shared.registry.clusters().len();
                    tracing::info!(clusters, "following the clusters of the management cluster");
                }
                broken = 0;
            }
        }
    }
}

/// Whose each certificate is, where several objects claim it: those in a status come before those that people brought,
/// and older objects before newer ones. Without this order whoever makes an object with another's certificate would only
/// have to wait for the next start.
struct Claims(HashMap<Fingerprint, ClusterName>);

impl Claims {
    fn of(all: &[Seen]) -> Self {
        let mut objects: Vec<&ClusterObject> = Vec::new();
        for seen in all {
            if let Seen::Cluster(object) = seen {
                objects.push(object);
            }
        }
        objects.sort_by(|one, other| (one.made, &one.record.name).cmp(&(other.made, &other.record.name)));
        let mut owners = HashMap::new();
        for record in objects.iter().map(|object| &object.record) {
            for active in &record.fingerprints {
                owners.entry(active.fingerprint).or_insert_with(|| record.name.clone());
            }
        }
        for record in objects.iter().map(|object| &object.record) {
            for active in brought::effective(record).fingerprints {
                owners.entry(active.fingerprint).or_insert_with(|| record.name.clone());
            }
        }
        Self(owners)
    }

    fn owner(&self, fingerprint: &Fingerprint) -> Option<ClusterName> {
        self.0.get(fingerprint).cloned()
    }
}

impl Shared {
    /// `claims` says whose certificates are where all objects are listed; `first` that they were there before this
    /// server.
    fn take_in(&self, seen: Seen, claims: Option<&Claims>, first: bool) {
        match seen {
            Seen::Cluster(object) => {
                let ClusterObject { record, identified, problems, .. } = *object;
                if self.known().saw(&record.name, version(identified), claims.is_some()) {
                    self.apply(&record, problems, claims, first);
                }
            }
            Seen::Unusable { name, why } => {
                tracing::warn!(name, why, "an object is no cluster");
                if let Ok(name) = name.parse() {
                    self.known().forget(&name);
                    self.remove(&name, "its object cannot be read any more");
                }
            }
        }
    }

    /// Makes the registry say what an object says.
    fn apply(&self, record: &ClusterRecord, mut problems: Vec<String>, claims: Option<&Claims>, first: bool) {
        if let Err(why) = brought::certificate(record) {
            problems.push(why);
        }
        let mut effective = brought::effective(record);
        effective.fingerprints.retain(|active| {
            let owner = match claims {
                Some(claims) => claims.owner(&active.fingerprint),
                None => self.registry.by_fingerprint(&active.fingerprint).map(|owner| owner.name().clone()),
            };
            let taken = owner.filter(|owner| *owner != record.name);
            if let Some(owner) = &taken {
                problems.push(format!("the certificate {} stands for {owner} already", active.fingerprint));
            }
            taken.is_none()
        });
        let name = &record.name;
        let known = self.registry.by_name(name);
        if known.as_ref().is_some_and(|known| *known.record() == effective) {
            self.problems_of(name, problems);
            return;
        }
        for problem in &problems {
            tracing::warn!(cluster = %name, problem, "part of a cluster's object counts for nothing");
        }
        if known.as_ref().is_some_and(|known| known.record().uid == effective.uid) {
            self.registry.update(&effective);
        } else {
            if known.is_some() {
                self.remove(name, "another cluster has its name now");
            }
            if first {
                self.registry.restore(effective);
            } else {
                self.registry.insert(effective);
                tracing::info!(cluster = %name, "cluster found in the management cluster");
            }
            self.count.inc();
        }
        self.problems_of(name, problems);
    }

    fn let_go(&self, name: &str, uid: &str) {
        if let Ok(name) = name.parse()
            && self.known().gone(&name, uid)
        {
            self.remove(&name, "its object was deleted");
        }
    }

    /// Takes a cluster out of the registry; its sessions are cut with all that runs on them.
    fn remove(&self, name: &ClusterName, why: &'static str) {
        if let Some(cluster) = self.registry.remove(name) {
            cluster.retire();
            self.count.dec();
            tracing::info!(cluster = %name, why, "cluster removed");
        }
        self.problems_of(name, Vec::new());
    }
}

//! Writes how clusters stand into the status of their objects, and what happens to them as Kubernetes Events.
//!
//! Run by the composition root beside `follow`. A status is written when it differs from what the object shows, as it was
//! listed or written last; what the watch tells afterwards starts nothing, so that no write follows from a write. Each
//! object is written at most every [`REST`], and all of them a bounded number of times a second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use moorline_api::ConditionStatus;
use moorline_kube::{ClusterObjects, ObjectError, Observed, ObservedCondition};
use moorline_model::ClusterName;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    clock,
    control::status,
    registry::{Cluster, Connection},
    state::State,
};

/// How often it is looked for what has changed. Looking costs some microseconds a cluster.
const LOOK: Duration = Duration::from_millis(500);

/// Between two writes of one object: a session that comes and goes all the time does not fill the kube-apiserver.
const REST: Duration = Duration::from_secs(2);

/// Objects written in one look: with [`LOOK`], a hundred a second.
const MAX_WRITES: usize = 50;

/// Writes under way at once.
const MAX_PARALLEL: usize = 8;

/// How long nothing is written after the kube-apiserver could not be asked.
const PAUSE: Duration = Duration::from_secs(5);

/// How long agents have to come back after this server started, before their clusters are shown as not connected: they
/// redial within seconds, and a restart need not change every object twice.
const SETTLE: Duration = Duration::from_secs(15);

/// The condition that says whether all of an object counts.
const ACCEPTED: &str = "Accepted";

/// What the objects show, as they were listed or written last. One entry for each object.
#[derive(Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<HashMap<ClusterName, Showing>>>);

#[derive(Clone)]
struct Showing {
    uid: String,
    observed: Observed,
    written: Option<Instant>,
}

impl Shown {
    /// An object was listed with this status.
    pub(crate) fn listed(&self, name: &ClusterName, uid: &str, observed: Observed) {
        let showing = Showing { uid: uid.to_owned(), observed, written: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), showing);
    }

    fn get(&self, name: &ClusterName, uid: &str) -> Option<Showing> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name).filter(|showing| showing.uid == uid).cloned()
    }

    fn wrote(&self, due: Due) {
        let showing = Showing { uid: due.uid, observed: due.observed, written: Some(Instant::now()) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(due.name, showing);
    }

    fn tried(&self, due: Due) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let showing = Showing { uid: due.uid, observed: Observed::default(), written: None };
        all.entry(due.name).or_insert(showing).written = Some(Instant::now());
    }

    fn keep(&self, names: &HashMap<ClusterName, String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, showing| names.get(name) == Some(&showing.uid));
    }
}

/// An object whose status is to be written.
#[derive(Clone)]
struct Due {
    name: ClusterName,
    uid: String,
    observed: Observed,
}

/// Keeps the objects' status up to date for ever.
pub(crate) async fn observe(state: Arc<State>, objects: ClusterObjects, shown: Shown) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        ticks.tick().await;
        let due = due(&state, &shown);
        let write = async |due: Due| (objects.observe(&due.name, &due.uid, &due.observed).await, due);
        let written: Vec<_> = stream::iter(due).map(write).buffer_unordered(MAX_PARALLEL).collect().await;
        let mut failed = None;
        for (outcome, due) in written {
            match outcome {
                // Deleted: the watch tells, and until then there is nothing to write.
                Ok(()) | Err(ObjectError::Gone) => shown.wrote(due),
                // Another object of the name, or somebody was quicker: looked at again after a rest.
                Err(ObjectError::Conflict) => shown.tried(due),
                Err(error @ ObjectError::Refused(_)) => {
                    tracing::warn!(cluster = %due.name, %error, "the status of a cluster is not taken by its object");
                    shown.wrote(due);
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            if !away {
                tracing::warn!(%error, "the status of clusters cannot be written to their objects; trying again");
            }
            away = true;
            tokio::time::sleep(PAUSE).await;
        } else {
            away = false;
        }
    }
}

fn due(state: &State, shown: &Shown) -> Vec<Due> {
    let objects: HashMap<ClusterName, String> = state.clusters.objects().into_iter().collect();
    shown.keep(&objects);
    let wanted = objects.into_iter().filter_map(|(name, uid)| {
        let cluster = state.registry.by_name(&name)?;
        let showing = shown.get(&name, &uid);
        if showing.as_ref().and_then(|showing| showing.written).is_some_and(|written| written.elapsed() < REST) {
            return None;
        }
        let before = showing.map(|showing| showing.observed);
        let settling = clock::now().since(state.started) < SETTLE;
        let untold = cluster.standing().connection == Connection::NeverConnected;
        if settling && untold && before.as_ref().is_some_and(|before| !before.conditions.is_empty()) {
            return None;
        }
        let observed = seen(state, &cluster, &state.clusters.problems(&name), before.as_ref());
        (before.as_ref() != Some(&observed)).then_some(Due { name, uid, observed })
    });
    wanted.take(MAX_WRITES).collect()
}

/// How a cluster stands, as its object is to show it.
fn seen(state: &State, cluster: &Cluster, problems: &[String], before: Option<&Observed>) -> Observed {
    let status = status::of(state, cluster);
    let mut conditions: Vec<_> = status.conditions.iter().map(condition).collect();
    conditions.push(accepted(problems, before));
    let last_seen = cluster.standing().last_seen.filter(|_| status.sessions.is_empty());
    Observed {
        conditions,
        sessions: u32::try_from(status.sessions.len()).unwrap_or(u32::MAX),
        // What was heard before this server started is still the best that is known.
        kubernetes_version: status.kubernetes_version.or_else(|| before?.kubernetes_version.clone()),
        agent_version: status.agent_version.or_else(|| before?.agent_version.clone()),
        last_seen: last_seen.or_else(|| before?.last_seen.filter(|_| status.sessions.is_empty())),
        certificate_expiry: cluster.record().fingerprints.iter().map(|active| active.not_after).max(),
    }
}

fn condition(condition: &moorline_api::Condition) -> ObservedCondition {
    ObservedCondition {
        kind: condition.kind.clone(),
        status: match condition.status {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
        }
        .to_owned(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: condition.last_transition_time,
    }
}

fn accepted(problems: &[String], before: Option<&Observed>) -> ObservedCondition {
    let (status, reason, message) = if problems.is_empty() {
        ("True", "Accepted", "everything in this object counts".to_owned())
    } else {
        ("False", "PartlyInvalid", problems.join("; "))
    };
    let before = before.and_then(|before| before.conditions.iter().find(|condition| condition.kind == ACCEPTED));
    let since = before.filter(|before| before.status == status).and_then(|before| before.since);
    ObservedCondition {
        kind: ACCEPTED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        since: Some(since.unwrap_or_else(clock::now)),
    }
}

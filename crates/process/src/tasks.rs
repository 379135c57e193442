//! The only door to new tasks: each has a name, is counted while it lives, and is waited for at shutdown.
//!
//! A panic in a task is a bug of ours: it is logged as an error and counted, and ends that task only.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::metrics::Registry;

type Labels = [(&'static str, &'static str); 1];

/// Spawns and tracks every task of the process. Cheap to clone; clones track the same tasks.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Family<Labels, Gauge>,
    panics: Family<Labels, Counter>,
    /// Bounded by the number of names in the source: they are `&'static str`.
    kinds: Arc<Mutex<BTreeMap<&'static str, Kind>>>,
}

/// Some tasks did not end in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tasks still running: {}", list(by_name))]
pub struct Unfinished {
    /// Name and number of those still running, ordered by name.
    pub by_name: Vec<(&'static str, u64)>,
}

impl Tasks {
    /// Tracks tasks and shows them as `moorline_tasks{task}` and `moorline_task_panics_total{task}`.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            tracker: TaskTracker::new(),
            running: registry.register("tasks", "Tasks alive, by name", Family::default()),
            panics: registry.register("task_panics", "Tasks that ended in a panic, by name", Family::default()),
            kinds: Arc::default(),
        }
    }

    /// Starts a task. The name is one of a small fixed set: it becomes a metric label.
    ///
    /// The handle may be dropped: the task goes on and stays tracked. Joining a task that panicked gives the panic.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let alive = self.alive(name);
        // No async block: it would hold the future twice, once as what it captured and once as what it waits for.
        self.tracker.spawn(AssertUnwindSafe(future).catch_unwind().map(move |outcome| alive.ended(outcome)))
    }

    /// Runs a blocking function on the threads kept for such work, tracked as well.
    pub fn spawn_blocking<F, R>(&self, name: &'static str, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let alive = self.alive(name);
        self.tracker.spawn_blocking(move || alive.ended(std::panic::catch_unwind(AssertUnwindSafe(work))))
    }

    /// How many tasks are alive.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// True when no task is alive.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// The tasks alive by name, ordered by name.
    #[must_use]
    pub fn by_name(&self) -> Vec<(&'static str, u64)> {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = kinds.iter().map(|(name, kind)| (*name, u64::try_from(kind.running.get()).unwrap_or(0)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Waits until no task is alive, at most `limit`. Tasks started meanwhile are waited for too.
    ///
    /// # Errors
    /// [`Unfinished`] names what was still running.
    pub async fn finished(&self, limit: Duration) -> Result<(), Unfinished> {
        self.tracker.close();
        match tokio::time::timeout(limit, self.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_elapsed) => Err(Unfinished { by_name: self.by_name() }),
        }
    }

    fn alive(&self, name: &'static str) -> Alive {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(name).or_insert_with(|| Kind {
            running: self.running.get_or_create_owned(&[("task", name)]),
            panics: self.panics.get_or_create_owned(&[("task", name)]),
        });
        kind.running.inc();
        Alive { name, kind: kind.clone() }
    }
}

/// The metric handles of one task name.
#[derive(Clone, Debug)]
struct Kind {
    running: Gauge,
    panics: Counter,
}

/// Counted in the gauge of its kind for as long as it exists: also when the task is dropped half-way.
struct Alive {
    name: &'static str,
    kind: Kind,
}

impl Alive {
    fn ended<R>(self, outcome: Result<R, Box<dyn Any + Send>>) -> R {
        match outcome {
            Ok(output) => output,
            Err(payload) => {
                self.kind.panics.inc();
                tracing::error!(task = self.name, panic = message(payload.as_ref()), "a task panicked; this is a bug");
                std::panic::resume_unwind(payload)
            }
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.kind.running.dec();
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

fn list(by_name: &[(&'static str, u64)]) -> String {
    let each: Vec<_> = by_name.iter().map(|(name, count)| format!("{name} x{count}")).collect();
    each.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> (Registry, Tasks) {
        let registry = Registry::new("test", "0");
        let tasks = Tasks::new(&registry);
        (registry, tasks)
    }

    #[tokio::test]
    async fn counts_tasks_by_name_while_they_live() {
        let (registry, tasks) = tasks();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let one = tasks.spawn("session", stopped);
        let two = tasks.spawn("session", std::future::pending::<()>());
        assert_eq!(tasks.by_name(), [("session", 2)]);
        assert!(registry.render().contains("moorline_tasks{task=\"session\"} 2"));
        stop.send(()).unwrap();
        one.await.unwrap().unwrap();
        two.abort();
        two.await.unwrap_err();
        assert_eq!(tasks.by_name(), []);
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_only_and_is_counted() {
        let (registry, tasks) = tasks();
        let broken = tasks.spawn("broken", async { panic!("on purpose") });
        assert!(broken.await.unwrap_err().is_panic());
        let blocking = tasks.spawn_blocking("broken", || panic!("on purpose, too"));
        assert!(blocking.await.unwrap_err().is_panic());
        assert_eq!(tasks.spawn("sound", async { 7 }).await.unwrap(), 7);
        assert!(registry.render().contains("moorline_task_panics_total{task=\"broken\"} 2"));
        tasks.finished(Duration::ZERO).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_named() {
        let (_registry, tasks) = tasks();
        tasks.spawn("stuck", std::future::pending::<()>());
        tasks.spawn("brief", tokio::time::sleep(Duration::from_secs(1)));
        let unfinished = tasks.finished(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(unfinished.to_string(), "tasks still running: stuck x1");
    }
}

//! How a process ends: phases in one direction, watched by every component, driven by one consumed value.
//!
//! `App::run` owns the [`Shutdown`] and hands clones of [`Phases`] to its components. Work that must not be cut (a
//! request that was accepted) holds a [`Work`] while it runs: draining waits for those, not for long-lived sessions.

use std::{fmt, time::Duration};

use tokio::sync::watch;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use crate::tasks::{Tasks, Unfinished};

/// Where the process is on its way out. Ordered: a later phase is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal work.
    #[default]
    Serving,
    /// `/readyz` says no, everything else goes on: load balancers take the process out of rotation.
    NotReady,
    /// Listeners are closed; nothing new is accepted.
    StopAccepting,
    /// Peers are told to go elsewhere; what runs goes on.
    GoAway,
    /// Accepted work ends by itself.
    Draining,
    /// What is left is cut.
    Cancelled,
    /// Nothing is left, or it was given up.
    Done,
}

impl Phase {
    /// The phase in a word, as logs and probes show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NotReady => "not-ready",
            Self::StopAccepting => "stop-accepting",
            Self::GoAway => "go-away",
            Self::Draining => "draining",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long each phase may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In [`Phase::NotReady`]: how long to go on serving so that probes and load balancers can notice.
    pub notice: Duration,
    /// In [`Phase::GoAway`]: how long peers get to read the go-away before the drain begins.
    pub go_away: Duration,
    /// In [`Phase::Draining`]: how long accepted work may take to end by itself.
    pub drain: Duration,
    /// In [`Phase::Cancelled`]: how long tasks get to clean up after they were told to stop.
    pub cancel: Duration,
}

impl Default for Plan {
    /// Fits Kubernetes' default `terminationGracePeriodSeconds` of 30: 2 + 1 + 20 + 5 seconds.
    fn default() -> Self {
        Self {
            notice: Duration::from_secs(2),
            go_away: Duration::from_secs(1),
            drain: Duration::from_secs(20),
            cancel: Duration::from_secs(5),
        }
    }
}

/// How a shutdown went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// How much accepted work was cut because it did not end within [`Plan::drain`].
    pub cut: usize,
    /// Tasks that did not end within [`Plan::cancel`] and were left behind.
    pub unfinished: Option<Unfinished>,
}

/// The right to end this process; there is one, and using it consumes it.
#[derive(Debug)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
    work: TaskTracker,
}

/// A view of the phase. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Phases {
    phase: watch::Receiver<Phase>,
    work: TaskTracker,
}

/// Held by a piece of accepted work for as long as it runs; draining waits until all are dropped.
#[derive(Clone, Debug)]
#[must_use = "dropping it says that the work has ended"]
pub struct Work {
    _token: TaskTrackerToken,
}

impl Shutdown {
    /// A process that is serving.
    #[must_use]
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), work: TaskTracker::new() }
    }

    /// A view for a component.
    #[must_use]
    pub fn phases(&self) -> Phases {
        Phases { phase: self.phase.subscribe(), work: self.work.clone() }
    }

    /// Goes through all phases and comes back when the process may exit.
    ///
    /// Draining ends early when no [`Work`] is left, cancelling when no task is left. When `hurry` resolves before
    /// [`Phase::Cancelled`] (a second signal, say), the phases up to there are skipped.
    pub async fn run(self, plan: Plan, tasks: &Tasks, hurry: impl Future<Output = ()>) -> Outcome {
        // An error is the wish to hurry: both ways lead on to `Cancelled`.
        if let Err(_hurried) = tokio::select! { biased; () = hurry => Err(()), () = self.wind_down(plan) => Ok(()) } {
            tracing::warn!(phase = %*self.phase.borrow(), "told to stop at once");
        }
        self.work.close();
        let cut = self.work.len();
        if cut > 0 {
            tracing::warn!(cut, "work that did not end in time is cut");
        }
        self.enter(Phase::Cancelled);
        let unfinished = tasks.finished(plan.cancel).await.err();
        if let Some(unfinished) = &unfinished {
            tracing::warn!(%unfinished, "leaving tasks behind");
        }
        self.enter(Phase::Done);
        Outcome { cut, unfinished }
    }

    async fn wind_down(&self, plan: Plan) {
        self.enter(Phase::NotReady);
        tokio::time::sleep(plan.notice).await;
        self.enter(Phase::StopAccepting);
        self.enter(Phase::GoAway);
        tokio::time::sleep(plan.go_away).await;
        self.enter(Phase::Draining);
        self.work.close();
        // What is left when the time is up is counted and cut by the caller.
        drop(tokio::time::timeout(plan.drain, self.work.wait()).await);
    }

    fn enter(&self, phase: Phase) {
        tracing::info!(%phase, work = self.work.len(), "shutdown");
        self.phase.send_replace(phase);
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Phases {
    /// The phase now.
    #[must_use]
    pub fn current(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Resolves once the process is in `phase` or a later one; also when its [`Shutdown`] was dropped unused, since
    /// then nobody is left to end the process in order.
    pub async fn reached(&self, phase: Phase) {
        let mut watched = self.phase.clone();
        drop(watched.wait_for(|now| *now >= phase).await);
    }

    /// Resolves when what is left must stop: [`Phase::Cancelled`].
    pub async fn cancelled(&self) {
        self.reached(Phase::Cancelled).await;
    }

    /// Marks a piece of accepted work that draining waits for.
    pub fn work(&self) -> Work {
        Work { _token: self.work.token() }
    }

    /// Resolves when no accepted work is left, after [`Phase::Draining`] at the earliest: for what must outlive the last
    /// request.
    pub async fn idle(&self) {
        self.work.wait().await;
    }

    /// How many pieces of accepted work are running.
    #[must_use]
    pub fn work_count(&self) -> usize {
        self.work.len()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;
    use crate::metrics::Registry;

    const PLAN: Plan = Plan {
        notice: Duration::from_secs(2),
        go_away: Duration::from_secs(1),
        drain: Duration::from_secs(20),
        cancel: Duration::from_secs(5),
    };

    fn tasks() -> Tasks {
        Tasks::new(&Registry::new("test", "0"))
    }

    #[tokio::test(start_paused = true)]
    async fn phases_come_in_order_and_draining_waits_for_work() {
        let (tasks, shutdown, began) = (tasks(), Shutdown::new(), Instant::now());
        let phases = shutdown.phases();
        let request = phases.work();
        let seen = tasks.spawn("observer", {
            let phases = phases.clone();
            async move {
                let mut seen = Vec::new();
                for phase in [Phase::NotReady, Phase::StopAccepting, Phase::GoAway, Phase::Draining, Phase::Cancelled] {
                    phases.reached(phase).await;
                    seen.push(began.elapsed().as_secs());
                }
                seen
            }
        });
        tasks.spawn("request", async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            drop(request);
        });
        let outcome = shutdown.run(PLAN, &tasks, pending()).await;
        assert_eq!(outcome, Outcome { cut: 0, unfinished: None });
        assert_eq!(seen.await.unwrap(), [0, 2, 2, 3, 10]);
        assert_eq!(began.elapsed().as_secs(), 10, "nothing is waited for that has ended");
        assert_eq!(phases.current(), Phase::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_cut_at_the_bounds() {
        let (tasks, shutdown, began) = (tasks(), Shutdown::new(), Instant::now());
        let phases = shutdown.phases();
        let _watch = phases.work();
        tasks.spawn("deaf", pending::<()>());
        let outcome = shutdown.run(PLAN, &tasks, pending()).await;
        assert_eq!(outcome.cut, 1);
        assert_eq!(outcome.unfinished.unwrap().by_name, [("deaf", 1)]);
        assert_eq!(began.elapsed().as_secs(), 2 + 1 + 20 + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hurry_skips_to_the_cut() {
        let (tasks, shutdown, began) = (tasks(), Shutdown::new(), Instant::now());
        let phases = shutdown.phases();
        let _watch = phases.work();
        let hurry = tokio::time::sleep(Duration::from_secs(1));
        let outcome = shutdown.run(PLAN, &tasks, hurry).await;
        assert_eq!(outcome, Outcome { cut: 1, unfinished: None });
        assert_eq!(began.elapsed().as_secs(), 1);
        assert_eq!(phases.current(), Phase::Done);
    }

    #[tokio::test]
    async fn a_lost_trigger_does_not_leave_components_waiting() {
        let shutdown = Shutdown::new();
        let phases = shutdown.phases();
        drop(shutdown);
        phases.cancelled().await;
    }
}

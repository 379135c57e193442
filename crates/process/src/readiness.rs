//! Whether this process should get traffic: named checks, each held by the component that knows the answer.
//!
//! Components flip their [`Latch`]; the admin door reads the whole. A check starts unready, so that a component that
//! never came up shows.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

/// All readiness checks of the process. Cheap to clone; clones share the checks.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    checks: Arc<Mutex<Vec<Arc<Check>>>>,
}

/// One component's word on whether it is ready. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Latch {
    check: Arc<Check>,
}

#[derive(Debug)]
struct Check {
    name: &'static str,
    state: Mutex<Option<Cow<'static, str>>>,
}

/// What one check says at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckState {
    /// The name the check was registered with.
    pub name: &'static str,
    /// Why it is not ready, or `None` when it is.
    pub unready: Option<Cow<'static, str>>,
}

impl Readiness {
    /// No checks yet, hence ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that is unready ("starting") until its latch says otherwise.
    #[must_use = "a check without its latch never becomes ready"]
    pub fn check(&self, name: &'static str) -> Latch {
        let check = Arc::new(Check { name, state: Mutex::new(Some(Cow::Borrowed("starting"))) });
        self.locked().push(Arc::clone(&check));
        Latch { check }
    }

    /// True when every check is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.locked().iter().all(|check| check.read().is_none())
    }

    /// Every check with its state, in the order of registration.
    #[must_use]
    pub fn states(&self) -> Vec<CheckState> {
        self.locked().iter().map(|check| CheckState { name: check.name, unready: check.read() }).collect()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Check>>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latch {
    /// The component can do its work.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The component cannot do its work. The reason is shown on the admin door, so it must hold nothing secret.
    pub fn unready(&self, reason: impl Into<Cow<'static, str>>) {
        self.set(Some(reason.into()));
    }

    /// What this latch said last.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.check.read().is_none()
    }

    fn set(&self, state: Option<Cow<'static, str>>) {
        *self.check.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Check {
    fn read(&self) -> Option<Cow<'static, str>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_check_is() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let tunnel = readiness.check("tunnel");
        let store = readiness.check("store");
        tunnel.ready();
        assert!(!readiness.is_ready(), "a check starts unready");
        store.ready();
        assert!(readiness.is_ready());
        tunnel.unready("no session");
        assert_eq!(
            readiness.states(),
            [
                CheckState { name: "tunnel", unready: Some("no session".into()) },
                CheckState { name: "store", unready: None }
            ]
        );
    }
}

//! The one way this crate takes a lock. Called by every module that shares state between the driver and
//! the users of streams; touches nothing else.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, and goes on with the data as it is if another thread panicked while it held the lock: every
/// critical section of this crate leaves its data consistent between statements, and one user's panic
/// must not take the session of all others down.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

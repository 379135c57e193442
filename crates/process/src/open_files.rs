//! How many file descriptors this process may have open at once.
//!
//! Asked once at the start by the composition roots of the server and the agent, which fit their own limits into the
//! answer: a process that runs out of descriptors cannot even answer its probes.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as far as the operating system lets us, and gives what then holds. The soft
/// limit is 1024 on many systems for the sake of programs that use `select`, which this one does not.
#[must_use]
pub fn raise_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum;
    if limit.current != wanted {
        limit.current = wanted;
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    // None stands for no limit.
    limit.current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_hard_one() {
        let most = raise_limit();
        assert!(most > 0);
        assert_eq!(raise_limit(), most);
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
    }
}

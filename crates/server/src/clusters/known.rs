//! Which objects of the Kubernetes store this server has seen, in which state: what others tell may be older than what
//! was written here, and must then count for nothing.

use std::collections::{HashMap, VecDeque};

use moorline_model::ClusterName;

use super::store::Version;

/// Deleted objects that are remembered until the watch has caught up. It is seconds behind at most, or begins anew.
const MAX_DELETED: usize = 1024;

/// What was seen of the objects. One entry for each cluster.
#[derive(Debug, Default)]
pub(crate) struct Known {
    objects: HashMap<ClusterName, Object>,
    /// Uids of objects that were deleted by this server, the newest last.
    deleted: VecDeque<String>,
    /// Raised when a listing begins.
    listing: u64,
}

#[derive(Debug)]
struct Object {
    version: Version,
    /// The listing during or after which it was last seen or written.
    seen: u64,
}

impl Known {
    /// This server wrote it.
    pub(crate) fn wrote(&mut self, name: &ClusterName, version: Version) {
        if !version.object.is_empty() {
            self.objects.insert(name.clone(), Object { version, seen: self.listing });
        }
    }

    /// This server deleted it.
    pub(crate) fn deleted(&mut self, name: &ClusterName, version: &Version) {
        self.objects.remove(name);
        if !version.object.is_empty() {
            self.deleted.push_back(version.object.clone());
            self.deleted.drain(..self.deleted.len().saturating_sub(MAX_DELETED));
        }
    }

    /// It was gone when this server wanted to delete it: what the watch still has to tell of it counts for nothing.
    pub(crate) fn deleted_already(&mut self, name: &ClusterName) {
        if let Some(known) = self.objects.get(name) {
            let version = known.version.clone();
            self.deleted(name, &version);
        }
    }

    /// The watch tells of it. Whether that is news, and not older than what is known. What a listing says (`listed`)
    /// counts also when it is older, as after a restore of the management cluster, unless it was written meanwhile.
    pub(crate) fn saw(&mut self, name: &ClusterName, version: Version, listed: bool) -> bool {
        if self.deleted.contains(&version.object) {
            return false;
        }
        let seen = self.listing;
        if let Some(known) = self.objects.get_mut(name)
            && version.is_older_than(&known.version)
            && !(listed && known.seen < seen)
        {
            known.seen = seen;
            return false;
        }
        self.objects.insert(name.clone(), Object { version, seen });
        true
    }

    /// The watch tells that it is gone. Whether it was the one that is known.
    pub(crate) fn gone(&mut self, name: &ClusterName, object: &str) -> bool {
        self.deleted.retain(|deleted| deleted != object);
        if self.objects.get(name).is_none_or(|known| known.version.object != object) {
            return false;
        }
        self.objects.remove(name);
        true
    }

    /// Nothing can be told from what is there under this name.
    pub(crate) fn forget(&mut self, name: &ClusterName) {
        self.objects.remove(name);
    }

    /// Everything is being listed from here on.
    pub(crate) fn listing(&mut self) {
        self.listing += 1;
    }

    /// Everything has been listed: what was neither listed nor written meanwhile is gone.
    pub(crate) fn listed(&mut self) -> Vec<ClusterName> {
        let listing = self.listing;
        let gone: Vec<_> =
            self.objects.iter().filter(|(_, known)| known.seen < listing).map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.objects.remove(name);
        }
        gone
    }

    /// The objects, by cluster.
    pub(crate) fn uids(&self) -> Vec<(ClusterName, String)> {
        self.objects.iter().map(|(name, known)| (name.clone(), known.version.object.clone())).collect()
    }

    /// The object of a cluster.
    pub(crate) fn uid(&self, name: &ClusterName) -> Option<String> {
        self.objects.get(name).map(|known| known.version.object.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(object: &str, state: u32) -> Version {
        Version { object: object.into(), state: state.to_string() }
    }

    fn name() -> ClusterName {
        "east".parse().unwrap()
    }

    #[test]
    fn what_is_older_than_what_was_written_here_is_no_news() {
        let mut known = Known::default();
        assert!(known.saw(&name(), version("a", 5), false));
        known.wrote(&name(), version("a", 9));
        assert!(!known.saw(&name(), version("a", 8), false));
        assert!(known.saw(&name(), version("a", 10), false));
        assert!(known.saw(&name(), version("b", 1), false), "another object of the name");
    }

    #[test]
    fn f39_a_deleted_object_does_not_come_back_and_its_end_is_not_its_successors() {
        let mut known = Known::default();
        known.wrote(&name(), version("a", 5));
        known.deleted(&name(), &version("a", 5));
        assert!(!known.saw(&name(), version("a", 4), false), "told late");
        known.wrote(&name(), version("b", 7));
        assert!(!known.gone(&name(), "a"));
        assert_eq!(known.uids(), [(name(), "b".to_owned())]);
        assert!(known.gone(&name(), "b"));
    }

    #[test]
    fn a_listing_ends_what_is_not_in_it_save_what_was_written_meanwhile() {
        let mut known = Known::default();
        let [west, north] = ["west", "north"].map(|name| name.parse::<ClusterName>().unwrap());
        known.saw(&name(), version("a", 1), false);
        known.saw(&west, version("b", 2), false);
        known.listing();
        assert!(known.saw(&west, version("b", 1), true), "restored");
        known.wrote(&north, version("c", 3));
        assert!(!known.saw(&north, version("c", 2), true), "written meanwhile");
        assert_eq!(known.listed(), [name()]);
        assert_eq!(known.listed(), []);
    }
}

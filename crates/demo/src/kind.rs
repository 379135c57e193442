//! The kinds of object the demo knows, and what Kubernetes' discovery says of each. Pure.

/// A kind of object in the core group, version `v1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Event,
    Namespace,
    Node,
    Pod,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::ConfigMap, Self::Event, Self::Namespace, Self::Node, Self::Pod];

    /// The kind whose path segment this is.
    pub(crate) fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Event => "Event",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmaps",
            Self::Event => "events",
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Pod => "pods",
        }
    }

    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Event => "event",
            Self::Namespace => "namespace",
            Self::Node => "node",
            Self::Pod => "pod",
        }
    }

    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::ConfigMap => "cm",
            Self::Event => "ev",
            Self::Namespace => "ns",
            Self::Node => "no",
            Self::Pod => "po",
        }
    }

    pub(crate) fn namespaced(self) -> bool {
        match self {
            Self::ConfigMap | Self::Event | Self::Pod => true,
            Self::Namespace | Self::Node => false,
        }
    }
}

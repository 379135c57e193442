//! The words of `audit.k8s.io/v1`: levels and stages.

use serde::{Serialize, Serializer};

/// How much is written down of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Who, what, where, when and how it ended; no body.
    Metadata,
    /// In Kubernetes also the request's body. Bodies pass through here unseen, so it is [`Level::Metadata`] here.
    Request,
    /// In Kubernetes also the response's body; as for [`Level::Request`].
    RequestResponse,
}

impl Level {
    /// As a policy writes them.
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("None", Self::None),
        ("Metadata", Self::Metadata),
        ("Request", Self::Request),
        ("RequestResponse", Self::RequestResponse),
    ];
}

/// When in the life of a request an event was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is known who asks for what, and nothing has been done.
    RequestReceived,
    /// The head of the response is there; only of requests that run long.
    ResponseStarted,
    /// It has ended, one way or another.
    ResponseComplete,
}

impl Stage {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::RequestReceived => 1,
            Self::ResponseStarted => 2,
            Self::ResponseComplete => 4,
        }
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages(u8);

impl Stages {
    /// No stage.
    pub const EMPTY: Self = Self(0);

    /// This set and one more stage.
    #[must_use]
    pub const fn with(self, stage: Stage) -> Self {
        Self(self.0 | stage.bit())
    }

    /// The stages of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a stage is in it.
    #[must_use]
    pub const fn contains(self, stage: Stage) -> bool {
        self.0 & stage.bit() != 0
    }
}

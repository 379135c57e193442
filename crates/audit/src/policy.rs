//! Which requests leave an event, and at which stages: the policy of `audit.k8s.io/v1`, as kube-apiserver applies it.
//!
//! The first rule that a request matches decides; what no rule matches leaves no event. One field is ours: `clusters`.

mod document;
mod rule;

use moorline_access::{Problems, RequestAttributes};
use moorline_model::Identity;

use crate::{Level, Stage, Stages};

use rule::Rule;

/// The rules.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    /// Of requests that do not run long some leave an event at their receipt.
    early: bool,
    deep: bool,
}

/// What a rule is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who was authenticated, if anybody was.
    pub user: Option<&'a Identity>,
    /// What they ask for.
    pub request: &'a RequestAttributes,
    /// Of which cluster; empty for what is not about one.
    pub cluster: &'a str,
}

/// What the policy says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    level: Level,
    omitted: Stages,
}

impl Policy {
    /// What is written down where no other policy is given: every request when it has ended, and those that run long
    /// when they begin as well.
    pub const DEFAULT: &'static str = include_str!("policy/default.yaml");

    /// Reads a `Policy` of `audit.k8s.io/v1`, in YAML or JSON. Field names are strict: a misspelt one would silently
    /// write down too little.
    ///
    /// # Errors
    /// Everything that is wrong, with the path of the field and what to write instead.
    pub fn parse(yaml: &str) -> Result<Self, Problems> {
        document::read(yaml).map(|rules| {
            let early = rules.iter().any(|rule| {
                rule.level > Level::None && !rule.omitted.contains(Stage::RequestReceived) && !rule.is_of_long_ones()
            });
            let deep = rules.iter().any(|rule| rule.level > Level::Metadata);
            Self { rules, early, deep }
        })
    }

    /// The ruling on a request.
    #[must_use]
    pub fn rule(&self, question: &Question<'_>) -> Ruling {
        let rule = self.rules.iter().find(|rule| rule.matches(question));
        rule.map_or(Ruling::NOTHING, |rule| Ruling { level: rule.level, omitted: rule.omitted })
    }

    /// Whether any request that does not run long may leave an event at its receipt.
    #[must_use]
    pub const fn has_early(&self) -> bool {
        self.early
    }

    /// Whether some rule asks for bodies, which are not written down here.
    #[must_use]
    pub const fn asks_for_bodies(&self) -> bool {
        self.deep
    }
}

impl Ruling {
    const NOTHING: Self = Self { level: Level::None, omitted: Stages::EMPTY };

    /// Whether there is an event at any stage.
    #[must_use]
    pub fn is_noted(&self) -> bool {
        self.level > Level::None
    }

    /// Whether there is an event at this stage.
    #[must_use]
    pub fn is_noted_at(&self, stage: Stage) -> bool {
        self.is_noted() && !self.omitted.contains(stage)
    }
}

#[cfg(test)]
mod tests;

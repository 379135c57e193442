//! The embedded policy: cluster roles and their bindings, as Kubernetes writes and reads them.

mod document;
mod rule;
mod subject;

use moorline_model::Identity;

use crate::{Attributes, Decision, Problems};

use rule::Rule;
use subject::Subject;

/// Cluster roles and cluster role bindings. What none of them allows is forbidden; the empty policy forbids all.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    bindings: Vec<Binding>,
}

#[derive(Clone, Debug)]
struct Binding {
    subjects: Vec<Subject>,
    rules: Vec<Rule>,
    /// What an audit log says of a decision by this binding.
    title: String,
}

impl Policy {
    /// Reads `ClusterRole` and `ClusterRoleBinding` objects (`rbac.authorization.k8s.io/v1`), one or more documents of
    /// YAML or a `List`. Field names are strict, since a misspelt one would silently allow too little or too much.
    ///
    /// # Errors
    /// Everything that is wrong, with the document, the path of the field and what to write instead.
    pub fn parse(yaml: &str) -> Result<Self, Problems> {
        document::read(yaml).map(|bindings| Self { bindings })
    }

    /// Whether `who` may do `what`, by the rules of Kubernetes RBAC.
    #[must_use]
    pub fn decide(&self, who: &Identity, what: &Attributes<'_>) -> Decision {
        let allows = |binding: &&Binding| {
            binding.subjects.iter().any(|subject| subject.is(who)) && binding.rules.iter().any(|rule| rule.covers(what))
        };
        match self.bindings.iter().find(allows) {
            Some(binding) => Decision::Allow { rule: binding.title.clone() },
            None => Decision::NoOpinion,
        }
    }
}

#[cfg(test)]
mod tests;

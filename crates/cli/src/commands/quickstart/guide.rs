//! What a quickstart tells its user: how far it is, and what to try next. Pure.

use std::path::Path;

use super::plan::Managed;
use crate::kubeconfig::context_name;

/// What there is to tell.
pub(super) struct Guide<'a> {
    pub(super) cluster: &'a str,
    /// The user that the written kubeconfig stands for.
    pub(super) user: &'a str,
    pub(super) managed: &'a Managed,
    pub(super) kubeconfig: &'a Path,
    pub(super) state_dir: &'a Path,
    /// Whether the context has to be chosen first.
    pub(super) choose_context: bool,
    /// Whether management commands find this quickstart without being told where.
    pub(super) is_default_dir: bool,
}

impl Guide<'_> {
    /// The lines printed once everything works.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![String::new(), "Try, in another terminal:".to_owned(), String::new()];
        let kubeconfig = quoted(self.kubeconfig);
        lines.push(format!("  export KUBECONFIG={kubeconfig}"));
        if self.choose_context {
            lines.push(format!("  kubectl config use-context {}", context_name(self.cluster)));
        }
        match self.managed {
            Managed::Demo => lines.extend(
                [
                    "  kubectl auth whoami                  # who the request arrived as, in the managed cluster",
                    "  kubectl get pods -w                  # a pod comes and goes every few seconds",
                    "  kubectl logs -f ticker               # a line a second",
                    "  kubectl exec -it ticker -- sh        # an echo that says what it is",
                    "  kubectl get configmap about-this-demo -o yaml",
                ]
                .map(str::to_owned),
            ),
            Managed::Real { .. } => lines.extend([
                "  kubectl auth whoami".to_owned(),
                "  kubectl get namespaces".to_owned(),
                String::new(),
                format!(
                    "You arrive there as the user {:?}, who may do what that cluster's own RBAC says. To let them look",
                    self.user
                ),
                "around, run this with the credentials of that cluster's administrator:".to_owned(),
                String::new(),
                format!(
                    "  kubectl create clusterrolebinding moorline-quickstart --clusterrole view --user {}",
                    self.user
                ),
            ]),
        }
        let dir = if self.is_default_dir { String::new() } else { format!(" --state-dir {}", quoted(self.state_dir)) };
        lines.extend([
            String::new(),
            format!("  moorline status{dir}"),
            format!("  moorline cluster add another{dir}"),
            String::new(),
            "Ctrl-C stops everything. The next start finds the same cluster.".to_owned(),
        ]);
        lines.join("\n")
    }
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+@%:".contains(character);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guide<'a>(managed: &'a Managed, is_default_dir: bool) -> Guide<'a> {
        Guide {
            cluster: "demo",
            user: "quickstart",
            managed,
            kubeconfig: Path::new("/home/a b/kubeconfig"),
            state_dir: Path::new("/tmp/s"),
            choose_context: !is_default_dir,
            is_default_dir,
        }
    }

    #[test]
    fn the_printed_lines_can_be_pasted() {
        let text = guide(&Managed::Demo, false).text();
        assert!(text.contains("\n  export KUBECONFIG='/home/a b/kubeconfig'\n"), "{text}");
        assert!(text.contains("\n  kubectl config use-context moorline-demo\n"), "{text}");
        assert!(text.contains("\n  moorline status --state-dir /tmp/s\n"), "{text}");
        assert!(guide(&Managed::Demo, true).text().contains("\n  moorline status\n"));
    }

    #[test]
    fn a_real_cluster_is_told_apart() {
        let real = Managed::Real { kubeconfig: "/k".into(), context: None };
        let text = guide(&real, true).text();
        assert!(text.contains("--user quickstart") && !text.contains("ticker"), "{text}");
    }
}

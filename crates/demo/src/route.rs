//! From method and path to what is wanted. Pure; the one list of everything that the demo serves.

use http::Method;

use crate::{answer::Failure, kind::Kind};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Read(Read),
    Review(Review),
    /// Namespace and name of the pod.
    Exec(String, String),
}

/// Everything that is merely read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Probe,
    Version,
    CoreVersions,
    Groups,
    CoreResources,
    Group(String),
    GroupResources(String),
    OpenApiIndex,
    OpenApiCore,
    /// All objects of a kind, of one namespace or of all.
    Collection(Kind, Option<String>),
    /// One object; the namespace is empty for kinds without.
    Object(Kind, String, String),
    /// Namespace and name of the pod.
    Log(String, String),
}

/// What a user asks about themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Review {
    WhoAmI,
    CanI,
    Rules,
}

impl Route {
    /// Finds the route, and refuses what the demo does not do.
    pub(crate) fn find(method: &Method, path: &str) -> Result<Self, Failure> {
        let route = Self::of_path(path)?;
        let allowed = match &route {
            Self::Review(_) => method == Method::POST,
            // Old clients open exec by POST; the upgrade decides.
            Self::Exec(..) => method == Method::GET || method == Method::POST,
            Self::Read(_) => method == Method::GET || method == Method::HEAD,
        };
        if allowed {
            return Ok(route);
        }
        let of_object = matches!(route, Self::Read(Read::Collection(..) | Read::Object(..)));
        let why = if of_object { ": the Moorline demo is read-only" } else { "" };
        Err(Failure::method_not_allowed(format!(
            "the server does not allow this method on the requested resource{why}"
        )))
    }

    /// True for what the agent may ask on its own account: its probes, and version and uid of the cluster.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Read(Read::Probe | Read::Version))
            || matches!(self, Self::Read(Read::Object(Kind::Namespace, _, name)) if name == "kube-system")
    }

    fn of_path(path: &str) -> Result<Self, Failure> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match segments.as_slice() {
            ["readyz" | "livez" | "healthz", ..] => Ok(Self::Read(Read::Probe)),
            ["version"] => Ok(Self::Read(Read::Version)),
            ["openapi", "v3"] => Ok(Self::Read(Read::OpenApiIndex)),
            ["openapi", "v3", "api", "v1"] => Ok(Self::Read(Read::OpenApiCore)),
            ["api"] => Ok(Self::Read(Read::CoreVersions)),
            ["apis"] => Ok(Self::Read(Read::Groups)),
            ["api", "v1"] => Ok(Self::Read(Read::CoreResources)),
            ["api", "v1", rest @ ..] => Self::core(rest),
            ["apis", group @ ("authentication.k8s.io" | "authorization.k8s.io")] => {
                Ok(Self::Read(Read::Group((*group).to_owned())))
            }
            ["apis", group @ ("authentication.k8s.io" | "authorization.k8s.io"), "v1"] => {
                Ok(Self::Read(Read::GroupResources((*group).to_owned())))
            }
            ["apis", "authentication.k8s.io", "v1", "selfsubjectreviews"] => Ok(Self::Review(Review::WhoAmI)),
            ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"] => Ok(Self::Review(Review::CanI)),
            ["apis", "authorization.k8s.io", "v1", "selfsubjectrulesreviews"] => Ok(Self::Review(Review::Rules)),
            _unknown => Err(unknown()),
        }
    }

    fn core(segments: &[&str]) -> Result<Self, Failure> {
        match segments {
            ["namespaces", namespace, plural, rest @ ..] => {
                let kind = Kind::from_plural(plural).filter(|kind| kind.namespaced()).ok_or_else(unknown)?;
                let namespace = (*namespace).to_owned();
                match (kind, rest) {
                    (_, []) => Ok(Self::Read(Read::Collection(kind, Some(namespace)))),
                    (_, [name]) => Ok(Self::Read(Read::Object(kind, namespace, (*name).to_owned()))),
                    (Kind::Pod, [name, "log"]) => Ok(Self::Read(Read::Log(namespace, (*name).to_owned()))),
                    (Kind::Pod, [name, "exec"]) => Ok(Self::Exec(namespace, (*name).to_owned())),
                    (Kind::Pod, [_, what @ ("attach" | "portforward" | "proxy" | "ephemeralcontainers")]) => Err(
                        Failure::not_found(format!("the Moorline demo has no {what} for its pods, only log and exec")),
                    ),
                    _unknown => Err(unknown()),
                }
            }
            [plural] => {
                Kind::from_plural(plural).map(|kind| Self::Read(Read::Collection(kind, None))).ok_or_else(unknown)
            }
            [plural, name] => Kind::from_plural(plural)
                .filter(|kind| !kind.namespaced())
                .map(|kind| Self::Read(Read::Object(kind, String::new(), (*name).to_owned())))
                .ok_or_else(unknown),
            _unknown => Err(unknown()),
        }
    }
}

fn unknown() -> Failure {
    Failure::not_found("the server could not find the requested resource")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_what_they_name() {
        let pods = |namespace: Option<&str>| Read::Collection(Kind::Pod, namespace.map(str::to_owned));
        for (path, route) in [
            ("/version", Read::Version),
            ("/readyz/ping", Read::Probe),
            ("/api/v1/pods", pods(None)),
            ("/api/v1/namespaces/demo/pods", pods(Some("demo"))),
            ("/api/v1/namespaces", Read::Collection(Kind::Namespace, None)),
            ("/api/v1/namespaces/demo", Read::Object(Kind::Namespace, String::new(), "demo".to_owned())),
            ("/api/v1/namespaces/demo/pods/echo/log", Read::Log("demo".to_owned(), "echo".to_owned())),
        ] {
            assert_eq!(Route::find(&Method::GET, path), Ok(Route::Read(route)), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_properly() {
        for (method, path, code) in [
            (Method::GET, "/api/v1/secrets", 404),
            (Method::GET, "/apis/apps/v1/deployments", 404),
            (Method::GET, "/api/v1/pods/echo", 404),
            (Method::GET, "/api/v1/namespaces/demo/nodes", 404),
            (Method::POST, "/api/v1/namespaces/demo/pods/echo/portforward", 404),
            (Method::GET, "/", 404),
            (Method::DELETE, "/api/v1/namespaces/demo/pods/echo", 405),
            (Method::POST, "/api/v1/namespaces/demo/pods", 405),
            (Method::GET, "/apis/authentication.k8s.io/v1/selfsubjectreviews", 405),
        ] {
            assert_eq!(Route::find(&method, path).unwrap_err().code, code, "{method} {path}");
        }
    }

    #[test]
    fn only_probes_and_the_clusters_identity_are_open() {
        let open = |path| Route::find(&Method::GET, path).unwrap().is_open();
        assert!(open("/readyz") && open("/version") && open("/api/v1/namespaces/kube-system"));
        assert!(!open("/api/v1/namespaces/demo") && !open("/api/v1/namespaces") && !open("/apis"));
    }
}

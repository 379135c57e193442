//! Adding one context to a kubeconfig: its cluster, its user and itself, everything else untouched. Pure.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use thiserror::Error;

use moorline_manifest::{InvalidYaml, Node};

/// What kubectl and its credential plugins speak; kubectl knows it since 1.22.
pub(crate) const EXEC_API: &str = "client.authentication.k8s.io/v1";

/// What a context needs to be.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The name of context, cluster and user alike.
    pub(crate) name: String,
    /// `https://HOST:PORT/clusters/NAME`.
    pub(crate) server: String,
    /// The authorities of the gateway, PEM.
    pub(crate) authorities: String,
    pub(crate) user: User,
}

/// What the user of a context has. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(crate) enum User {
    /// The credential itself.
    Shows(Credential),
    /// This program with these arguments, which prints a credential whenever kubectl needs one.
    Runs(Vec<String>),
}

/// How the user proves who they are. No `Debug`: it is a secret.
#[derive(Clone)]
pub(crate) enum Credential {
    Token(String),
    /// Certificate and key, PEM.
    Certificate(String, String),
}

/// The file is not what a kubeconfig is.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    #[error("is {0}")]
    Yaml(#[from] InvalidYaml),
    #[error("{0} is not a {1}")]
    Shape(&'static str, &'static str),
}

/// Adds or replaces the context of that name. What a user added to it, such as a namespace, stays.
pub(crate) fn merge(config: &mut Node, entry: &Entry, make_current: bool) -> Result<(), Malformed> {
    default(config, "apiVersion", Node::text("v1"))?;
    default(config, "kind", Node::text("Config"))?;

    let cluster = named(config, "clusters", &entry.name, "cluster")?;
    cluster.set("server", Node::text(&entry.server));
    for replaced in ["certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify"] {
        cluster.remove(replaced);
    }
    cluster.set("certificate-authority-data", encoded(&entry.authorities));

    let context = named(config, "contexts", &entry.name, "context")?;
    context.set("cluster", Node::text(&entry.name));
    context.set("user", Node::text(&entry.name));

    let user = named(config, "users", &entry.name, "user")?;
    *user = match &entry.user {
        User::Runs(arguments) => Node::map([("exec", exec(arguments))]),
        User::Shows(Credential::Token(token)) => Node::map([("token", Node::text(token))]),
        User::Shows(Credential::Certificate(certificate, key)) => {
            Node::map([("client-certificate-data", encoded(certificate)), ("client-key-data", encoded(key))])
        }
    };

    let has_current = config.at("current-context").and_then(Node::as_text).is_some_and(|name| !name.is_empty());
    if make_current || !has_current {
        config.set("current-context", Node::text(&entry.name));
    }
    Ok(())
}

/// A kubeconfig with this one context.
pub(crate) fn render(entry: &Entry) -> Result<String, Malformed> {
    let mut config = Node::Map(Vec::new());
    merge(&mut config, entry, true)?;
    Ok(config.to_yaml()?)
}

fn default(config: &mut Node, key: &'static str, value: Node) -> Result<(), Malformed> {
    let place = config.entry(key).ok_or(Malformed::Shape("the file", "map"))?;
    if *place == Node::Null {
        *place = value;
    }
    Ok(())
}

/// The inner map of the entry of that name in one of the three lists, made where it is not.
fn named<'a>(
    config: &'a mut Node,
    list: &'static str,
    name: &str,
    inner: &'static str,
) -> Result<&'a mut Node, Malformed> {
    let place = config.entry(list).ok_or(Malformed::Shape("the file", "map"))?;
    if *place == Node::Null {
        *place = Node::List(Vec::new());
    }
    let Node::List(entries) = place else { return Err(Malformed::Shape(list, "list")) };
    let is_it = |entry: &Node| entry.at("name").and_then(Node::as_text) == Some(name);
    let index = entries.iter().position(is_it).unwrap_or_else(|| {
        entries.push(Node::map([(inner, Node::Map(Vec::new())), ("name", Node::text(name))]));
        entries.len() - 1
    });
    let found = entries.get_mut(index).and_then(|entry| entry.entry(inner));
    let found = found.ok_or(Malformed::Shape(list, "list of maps"))?;
    match found {
        Node::Null => *found = Node::Map(Vec::new()),
        Node::Map(_) => {}
        Node::Bool(_) | Node::Integer(_) | Node::Large(_) | Node::Float(_) | Node::Text(_) | Node::List(_) => {
            return Err(Malformed::Shape(inner, "map"));
        }
    }
    Ok(found)
}

/// A credential plugin of kubectl: <https://kubernetes.io/docs/reference/config-api/client-authentication.v1/>.
fn exec(arguments: &[String]) -> Node {
    Node::map([
        ("apiVersion", Node::text(EXEC_API)),
        ("command", Node::text("moorline")),
        ("args", Node::List(arguments.iter().map(Node::text).collect())),
        ("interactiveMode", Node::text("IfAvailable")),
        ("provideClusterInfo", Node::Bool(false)),
        ("installHint", Node::text("kubectl gets its tokens from the program moorline: put it on the PATH")),
    ])
}

fn encoded(pem: &str) -> Node {
    Node::text(BASE64_STANDARD.encode(pem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(credential: Credential) -> Entry {
        Entry {
            name: "moorline-demo".to_owned(),
            server: "https://127.0.0.1:9443/clusters/demo".to_owned(),
            authorities: "CA".to_owned(),
            user: User::Shows(credential),
        }
    }

    fn items<'a>(config: &'a Node, list: &str) -> &'a [Node] {
        let Some(Node::List(items)) = config.at(list) else { panic!("{list} is a list") };
        items
    }

    const FOREIGN: &str = "\
kind: Config
apiVersion: v1
preferences:
  colors: true
current-context: prod
clusters:
- name: prod
  cluster:
    server: https://prod.example:6443
    future-field: [1, two, {three: 3.5}]
    extensions:
    - name: minikube.sigs.k8s.io
      extension: {provider: \"0123\", \"on\": \"yes\"}
contexts:
- context: {cluster: prod, user: prod}
  name: prod
users:
- name: prod
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: gcloud
      args: [\"--token\", \"1e5\"]
      env: null
unknown-top: {x: ~}
";

    #[test]
    fn a_new_file_holds_one_complete_context() {
        let yaml = render(&entry(Credential::Token("secret".to_owned()))).unwrap();
        assert_eq!(
            yaml,
            "\
apiVersion: v1
kind: Config
clusters:
- cluster:
    server: https://127.0.0.1:9443/clusters/demo
    certificate-authority-data: Q0E=
  name: moorline-demo
contexts:
- context:
    cluster: moorline-demo
    user: moorline-demo
  name: moorline-demo
users:
- user:
    token: secret
  name: moorline-demo
current-context: moorline-demo
"
        );
    }

    #[test]
    fn foreign_contexts_and_unknown_fields_are_unharmed() {
        let before = Node::parse(FOREIGN).unwrap();
        let mut config = before.clone();
        merge(&mut config, &entry(Credential::Token("t".to_owned())), false).unwrap();
        let after = Node::parse(&config.to_yaml().unwrap()).unwrap();
        for list in ["clusters", "contexts", "users"] {
            let (before, after) = (items(&before, list), items(&after, list));
            assert_eq!(after.len(), 2);
            assert_eq!(after[0], before[0], "{list}");
        }
        for same in ["kind", "apiVersion", "preferences", "current-context", "unknown-top"] {
            assert_eq!(after.at(same), before.at(same), "{same}");
        }
        let order = |node: &Node| {
            let Node::Map(entries) = node else { panic!("a map") };
            entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(order(&after), order(&before));
    }

    #[test]
    fn a_second_merge_replaces_and_keeps_what_the_user_added() {
        let mut config = Node::parse(FOREIGN).unwrap();
        let pair = Credential::Certificate("CERT".to_owned(), "KEY".to_owned());
        merge(&mut config, &entry(pair), true).unwrap();
        named(&mut config, "contexts", "moorline-demo", "context").unwrap().set("namespace", Node::text("mine"));
        named(&mut config, "clusters", "moorline-demo", "cluster")
            .unwrap()
            .set("insecure-skip-tls-verify", Node::Bool(true));
        merge(&mut config, &entry(Credential::Token("t".to_owned())), false).unwrap();
        let context = named(&mut config, "contexts", "moorline-demo", "context").unwrap().clone();
        assert_eq!(context.at("namespace"), Some(&Node::text("mine")));
        assert!(
            named(&mut config, "clusters", "moorline-demo", "cluster")
                .unwrap()
                .at("insecure-skip-tls-verify")
                .is_none()
        );
        let user = named(&mut config, "users", "moorline-demo", "user").unwrap().clone();
        assert_eq!(user, Node::map([("token", Node::text("t"))]), "no certificate is left beside the token");
        assert_eq!(items(&config, "contexts").len(), 2);
        assert_eq!(config.at("current-context"), Some(&Node::text("moorline-demo")));
    }

    #[test]
    fn what_is_no_kubeconfig_is_left_alone() {
        for yaml in ["- a\n- b\n", "clusters: 3\n", "users: [{name: moorline-demo, user: 3}]\n", "just text\n"] {
            let mut config = Node::parse(yaml).unwrap();
            assert!(merge(&mut config, &entry(Credential::Token("t".to_owned())), true).is_err(), "{yaml}");
        }
    }

    #[test]
    fn a_plugin_takes_the_place_of_a_token() {
        let mut config = Node::parse(FOREIGN).unwrap();
        merge(&mut config, &entry(Credential::Token("t".to_owned())), false).unwrap();
        let runs = User::Runs(vec!["credential".to_owned(), "--client-id=x".to_owned()]);
        merge(&mut config, &Entry { user: runs, ..entry(Credential::Token(String::new())) }, false).unwrap();
        let user = named(&mut config, "users", "moorline-demo", "user").unwrap().clone();
        assert_eq!(user.at("token"), None);
        let exec = user.at("exec").unwrap();
        assert_eq!(exec.at("interactiveMode"), Some(&Node::text("IfAvailable")));
        assert_eq!(exec.at("args"), Some(&Node::List(vec![Node::text("credential"), Node::text("--client-id=x")])));
    }
}

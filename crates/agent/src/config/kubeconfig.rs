//! Reads a kubeconfig as kubectl does, as far as an agent may: no plugins are run, no password is sent.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_mtls::{HttpsTrust, KeyPair, Roots, Source};
use serde::Deserialize;

use super::{
    Followed, Problems,
    resolve::trust,
    upstream::{self, Found},
};
use crate::credentials::{TokenSource, bearer};

const FIELD: &str = "--kubeconfig";

/// The largest kubeconfig read, in bytes; those of whole fleets have some hundred thousand.
const MAX_SIZE: u64 = 8 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[derive(Default)]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<Named<Context>>,
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
}

/// An entry of one of the lists; the body stands under the list's own word.
#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    body: Option<T>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    username: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
}

pub(super) fn read(
    file: &Path,
    context: Option<&str>,
    followed: &mut Vec<Followed>,
    warnings: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<Found> {
    let config = parse(file, problems)?;
    let (cluster, user) = choose(config, file, context, problems)?;
    let directory = file.parent().unwrap_or(Path::new(""));
    if cluster.proxy_url.is_some() {
        problems.add(FIELD, "the cluster has a proxy-url", "remove it: the agent stands beside its kube-apiserver");
    }
    let trust = whom_to_trust(&cluster, directory, followed, warnings, problems);
    let (keys, token) = credentials(user, directory, followed, problems);
    Some(Found {
        source: FIELD,
        url: cluster.server,
        trust,
        keys,
        token,
        server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
    })
}

fn parse(file: &Path, problems: &mut Problems) -> Option<Kubeconfig> {
    let shown = file.display();
    let remedy = "give a kubeconfig that kubectl can use";
    let text = match std::fs::metadata(file).map(|metadata| metadata.len()) {
        Ok(size) if size > MAX_SIZE => {
            problems.add(FIELD, format!("{shown} is larger than {MAX_SIZE} bytes"), remedy);
            return None;
        }
        _readable_or_told_next => std::fs::read_to_string(file),
    };
    let text = text.map_err(|error| problems.add(FIELD, format!("cannot read {shown}: {error}"), remedy)).ok()?;
    // The reader's message may quote the file, and with it a token: only the place is told.
    let parsed = serde_saphyr::from_str(&text);
    parsed
        .map_err(|_quotes| problems.add(FIELD, format!("{shown} is no kubeconfig (YAML or a field is wrong)"), remedy))
        .ok()
}

fn choose(config: Kubeconfig, file: &Path, context: Option<&str>, problems: &mut Problems) -> Option<(Cluster, User)> {
    let shown = file.display();
    let known: Vec<_> = config.contexts.iter().map(|context| context.name.clone()).collect();
    let wanted = context.unwrap_or(&config.current_context).to_owned();
    let remedy = format!("choose one by --context: {}", known.join(", "));
    if wanted.is_empty() {
        problems.add(FIELD, format!("{shown} has no current context"), remedy);
        return None;
    }
    let Some(context) = find(config.contexts, &wanted) else {
        problems.add("--context", format!("{shown} has no context {wanted:?}"), remedy);
        return None;
    };
    let Some(cluster) = find(config.clusters, &context.cluster) else {
        let what = format!("context {wanted:?} names the cluster {:?}, which is not in {shown}", context.cluster);
        problems.add(FIELD, what, "correct the file");
        return None;
    };
    let user = if context.user.is_empty() { Some(User::default()) } else { find(config.users, &context.user) };
    let Some(user) = user else {
        let what = format!("context {wanted:?} names the user {:?}, who is not in {shown}", context.user);
        problems.add(FIELD, what, "correct the file");
        return None;
    };
    Some((cluster, user))
}

fn find<T>(list: Vec<Named<T>>, name: &str) -> Option<T> {
    list.into_iter().find(|entry| entry.name == name)?.body
}

fn whom_to_trust(
    cluster: &Cluster,
    directory: &Path,
    followed: &mut Vec<Followed>,
    warnings: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<HttpsTrust> {
    if cluster.server.starts_with("http://") {
        return None;
    }
    if cluster.insecure_skip_tls_verify {
        warnings.push(
            "the kubeconfig says insecure-skip-tls-verify: anybody between the agent and its kube-apiserver can read \
             and change everything, the agent's token included"
                .to_owned(),
        );
        return Some(HttpsTrust::DangerousAnybody);
    }
    let Some(data) = &cluster.certificate_authority_data else {
        let file = cluster.certificate_authority.as_ref().map(|file| directory.join(file));
        return trust("certificate-authority of --kubeconfig", file.as_deref(), followed, problems);
    };
    let field = "certificate-authority-data of --kubeconfig";
    let pem = decode(field, data, problems)?;
    let roots = Roots::from_pem(&pem).map(HttpsTrust::from);
    roots.map_err(|error| problems.add(field, error.to_string(), "correct the file")).ok()
}

fn credentials(
    user: User,
    directory: &Path,
    followed: &mut Vec<Followed>,
    problems: &mut Problems,
) -> (Option<Source<KeyPair>>, TokenSource) {
    if user.exec.is_some() || user.auth_provider.is_some() {
        problems.add(
            FIELD,
            "the user gets its credential from a plugin (exec or auth-provider), which the agent does not run",
            "give the agent a service account of its own and put its token or tokenFile into the kubeconfig",
        );
    }
    if user.username.is_some() {
        problems.add(FIELD, "the user has a password", "kube-apiserver knows none since 1.19; use a token");
    }
    if user.impersonate.is_some() {
        problems.add(FIELD, "the user impersonates another (as)", "remove it: the agent impersonates by itself");
    }
    let keys = client_keys(&user, directory, followed, problems);
    let token = match (user.token.filter(|token| !token.is_empty()), user.token_file) {
        // As kubectl does: a file wins, since it can be rotated.
        (_, Some(file)) => upstream::token_file("tokenFile of --kubeconfig", &directory.join(file), problems),
        (Some(token), None) => match bearer(&token) {
            Ok(header) => TokenSource::Fixed(header),
            Err(error) => {
                problems.add("token of --kubeconfig", error.to_string(), "correct the file");
                TokenSource::None
            }
        },
        (None, None) => TokenSource::None,
    };
    (keys, token)
}

fn client_keys(
    user: &User,
    directory: &Path,
    followed: &mut Vec<Followed>,
    problems: &mut Problems,
) -> Option<Source<KeyPair>> {
    let field = "client-certificate of --kubeconfig";
    if let (Some(certificate), Some(key)) = (&user.client_certificate, &user.client_key)
        && user.client_certificate_data.is_none()
        && user.client_key_data.is_none()
    {
        let files = (directory.join(certificate), directory.join(key));
        return upstream::key_pair(field, (&files.0, &files.1), followed, problems);
    }
    let mut part = |data: &Option<String>, file: &Option<PathBuf>| match (data, file) {
        (Some(data), _) => decode(field, data, problems).map(Some),
        (None, Some(file)) => {
            let path = directory.join(file);
            let read = std::fs::read(&path).map(Some);
            read.map_err(|error| {
                problems.add(field, format!("cannot read {}: {error}", path.display()), "correct the file");
            })
            .ok()
        }
        (None, None) => Some(None),
    };
    let certificate = part(&user.client_certificate_data, &user.client_certificate)?;
    let key = part(&user.client_key_data, &user.client_key)?;
    match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let pair = KeyPair::from_pem(&certificate, &key).map(Source::fixed);
            pair.map_err(|error| problems.add(field, error.to_string(), "correct the file")).ok()
        }
        (Some(_), None) | (None, Some(_)) => {
            problems.add(field, "is given without its key, or the key without it", "give both");
            None
        }
    }
}

fn decode(field: &str, data: &str, problems: &mut Problems) -> Option<Vec<u8>> {
    let compact: String = data.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(compact);
    decoded.map_err(|_no_base64| problems.add(field, "is not base64", "correct the file")).ok()
}

//! What it takes to join: as written ([`RawJoin`]), and as meant, with everything that is wrong between the two.

use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use moorline_model::{ClusterName, Fingerprint};
use moorline_mtls::HttpsConnector;
use moorline_process::Registry;
use moorline_wire::{Invitation, JoinProof};
use zeroize::Zeroizing;

use super::{ConfigError, Problems, RawConfig, resolve, upstream};
use crate::{
    credentials::Credentials,
    identity::{Directory, Home},
    join::Join,
    kubernetes::Client,
    metrics::Metrics,
    serve::upstream::Upstream,
    tunnel::{Address, Proxy, ProxyVariables},
};

/// Bytes of a token's file.
const MAX_TOKEN: u64 = 16 * 1024;

/// What the operator wrote. Its `Debug` text shows no token.
#[derive(Args, Clone, Default)]
pub struct RawJoin {
    /// The join token, or - to read it from standard input. As an argument it is seen by whoever may list this machine's
    /// processes, and stays in the shell's history: better are - and --token-file
    #[arg(value_name = "TOKEN", conflicts_with = "token_file", required_unless_present = "token_file")]
    pub token: Option<String>,

    /// File with the join token; with --attest, with the token of the cluster's Kubernetes for the agent's service account
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Directory that the certificate and its key are written to [default: /certs]
    #[arg(long, value_name = "DIR", env = "MOORLINE_CERT_DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Address of the tunnel server, where it is reached by another than the one in the token
    #[arg(long, visible_alias = "server", value_name = "HOST:PORT")]
    pub management_cluster_addr: Option<String>,

    /// Join although the directory holds a certificate already, which is lost then
    #[arg(long)]
    pub replace: bool,

    /// Authorities that an https:// proxy is verified by [default: those of the operating system]
    #[arg(long, value_name = "FILE", env = "MOORLINE_PROXY_CA_FILE")]
    pub proxy_ca_file: Option<PathBuf>,

    /// Join by what the cluster's Kubernetes attests, instead of a join token: takes --name, --server and --ca-pin
    #[arg(long, requires_all = ["name", "management_cluster_addr", "ca_pins", "token_file"])]
    pub attest: bool,

    /// With --attest: the name of this cluster
    #[arg(long, value_name = "NAME", requires = "attest")]
    pub name: Option<String>,

    /// With --attest: the SHA-256 of the public key of the tunnel's authority, as sha256:HEX; may be repeated
    #[arg(long = "ca-pin", value_name = "PIN", requires = "attest")]
    pub ca_pins: Vec<String>,
}

impl fmt::Debug for RawJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawJoin").field("token_file", &self.token_file).finish_non_exhaustive()
    }
}

/// What is shown to the server, and how it is known.
pub(crate) struct Shown {
    pub(crate) name: ClusterName,
    pub(crate) address: Address,
    pub(crate) pins: Vec<Fingerprint>,
    pub(crate) proof: JoinProof,
}

/// Everything that joining takes, or all that is wrong.
pub(crate) fn join(raw: &RawJoin) -> Result<Join, ConfigError> {
    let mut problems = Problems::default();
    let shown = if raw.attest { attested(raw, &mut problems) } else { invited(raw, &mut problems) };
    let given = raw.management_cluster_addr.as_deref().map(|text| {
        text.parse::<Address>().map_err(|error| {
            problems.add("--management-cluster-addr", error.to_string(), "write HOST or HOST:PORT without a scheme");
        })
    });
    let home = Directory::new(raw.cert_dir.clone().unwrap_or_else(|| PathBuf::from(resolve::DEFAULT_CERT_DIR)));
    let Some(mut shown) = shown else { return Err(ConfigError(problems.0)) };
    let other = given.and_then(Result::ok);
    if let Some(address) = &other {
        shown.address = address.clone();
    }
    let proxy = proxy(&shown.address, raw.proxy_ca_file.as_deref(), &mut problems);
    if !problems.0.is_empty() {
        return Err(ConfigError(problems.0));
    }
    Ok(Join { shown, proxy, told_elsewhere: other.is_some(), home: Arc::new(home), replace: raw.replace })
}

/// What an agent that has no certificate joins by at its start; none where nothing says how.
pub(crate) fn join_at_start(raw: &RawConfig) -> Option<RawJoin> {
    let token_file = raw.join_token_file.clone()?;
    Some(RawJoin {
        token_file: Some(token_file),
        cert_dir: raw.cert_dir.clone(),
        management_cluster_addr: raw.management_cluster_addr.clone(),
        proxy_ca_file: raw.proxy_ca_file.clone(),
        ..RawJoin::default()
    })
}

/// The home of the certificate that an agent starts with: a Secret is asked for, and written to, as the agent itself.
pub(crate) fn home(raw: &RawConfig) -> Result<Arc<dyn Home>, ConfigError> {
    let mut problems = Problems::default();
    let mounted = Directory::new(raw.cert_dir.clone().unwrap_or_else(|| PathBuf::from(resolve::DEFAULT_CERT_DIR)));
    let Some(secret) = resolve::secret(raw, &mounted, &mut problems) else {
        return if problems.0.is_empty() { Ok(Arc::new(mounted)) } else { Err(ConfigError(problems.0)) };
    };
    let found =
        super::in_environment(|around| upstream::resolve(raw, around, &mut Vec::new(), &mut Vec::new(), &mut problems));
    let Some((config, token)) = found else { return Err(ConfigError(problems.0)) };
    let metrics = Arc::new(Metrics::new(&Registry::new("moorline-agent", env!("CARGO_PKG_VERSION"))));
    let credentials = Credentials::new(token, Arc::clone(&metrics)).map_err(|error| {
        problems.add("the token for the kube-apiserver", error.to_string(), "give the agent a service account");
        ConfigError(std::mem::take(&mut problems.0))
    })?;
    let upstream = Upstream::new(config, Arc::new(credentials), Arc::clone(&metrics));
    secret.attach(Client::new(Arc::new(upstream)), metrics);
    Ok(secret)
}

fn invited(raw: &RawJoin, problems: &mut Problems) -> Option<Shown> {
    const REMEDY: &str = "make a join token in the management cluster: moorline token create NAME";
    let (field, text) = token(raw, problems)?;
    let invitation = text.parse::<Invitation>();
    let invitation = invitation.map_err(|error| problems.add(field, error.to_string(), REMEDY)).ok()?;
    let Invitation { address, name, id, secret, pins } = invitation;
    let address =
        address.parse().map_err(|_invalid| problems.add(field, "names no address of a server", REMEDY)).ok()?;
    Some(Shown { name, address, pins, proof: JoinProof::Token { id, secret } })
}

fn attested(raw: &RawJoin, problems: &mut Problems) -> Option<Shown> {
    let (_field, text) = token(raw, problems)?;
    let name = raw.name.as_deref().unwrap_or_default().parse::<ClusterName>();
    let name = name.map_err(|error| problems.add("--name", error.to_string(), "give the cluster's name")).ok();
    let address = raw.management_cluster_addr.as_deref().unwrap_or_default().parse::<Address>().ok();
    let mut pins = Vec::new();
    for pin in &raw.ca_pins {
        match pin.strip_prefix("sha256:").unwrap_or(pin).parse() {
            Ok(pin) => pins.push(pin),
            Err(_invalid) => {
                let remedy = "write sha256: and 64 hexadecimal digits, as `moorline cluster add NAME --attest-issuer …` prints them";
                problems.add("--ca-pin", format!("{pin:?} is no pin"), remedy);
            }
        }
    }
    // What is wrong with the address is told by whoever reads it for both kinds.
    let address = address.or_else(|| "unknown".parse().ok())?;
    Some(Shown { name: name?, address, pins, proof: JoinProof::Attestation(text) })
}

/// The text of the token, and where it is from.
fn token(raw: &RawJoin, problems: &mut Problems) -> Option<(&'static str, Zeroizing<String>)> {
    let (field, read) = match (&raw.token_file, raw.token.as_deref()) {
        (Some(file), _) => ("--token-file", bounded(std::fs::File::open(file))),
        (None, Some("-")) => ("standard input", bounded(Ok(std::io::stdin()))),
        (None, Some(token)) => ("TOKEN", Ok(Zeroizing::new(token.to_owned()))),
        (None, None) => ("TOKEN", Ok(Zeroizing::default())),
    };
    let at = raw.token_file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default();
    let text =
        read.map_err(|error| problems.add(field, format!("{at}{error}"), "name a file that holds the token")).ok()?;
    if text.trim().is_empty() {
        problems.add(field, format!("{at}is empty"), "give the token");
        return None;
    }
    Some((field, Zeroizing::new(text.trim().to_owned())))
}

fn bounded<R: std::io::Read>(opened: std::io::Result<R>) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    opened?.take(MAX_TOKEN).read_to_string(&mut text)?;
    Ok(text)
}

fn proxy(
    address: &Address,
    ca_file: Option<&Path>,
    problems: &mut Problems,
) -> Option<(Proxy, Option<HttpsConnector>)> {
    #[expect(clippy::disallowed_methods, reason = "this is the configuration")]
    let first = |names: &[&str]| {
        let mut set = names.iter().filter_map(|name| std::env::var(name).ok());
        set.find(|value| !value.trim().is_empty()).unwrap_or_default()
    };
    let variables = ProxyVariables {
        proxy: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
        no_proxy: first(&["NO_PROXY", "no_proxy"]),
    };
    match Proxy::choose(&variables, &address.host, address.port) {
        Ok(None) => None,
        Ok(Some(proxy)) if !proxy.tls => Some((proxy, None)),
        Ok(Some(proxy)) => {
            let trust = resolve::trust("--proxy-ca-file", ca_file, &mut Vec::new(), problems)?;
            Some((proxy, Some(HttpsConnector::new(trust, None, &[b"http/1.1"]))))
        }
        Err(error) => {
            problems.add("HTTPS_PROXY", error.to_string(), "correct it, or exempt the server by NO_PROXY");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_wire::JoinSecret;

    use super::*;

    fn text() -> String {
        let invitation = Invitation {
            address: "hub.example.com:9449".to_owned(),
            name: "east".parse().unwrap(),
            id: "0123456789ab".to_owned(),
            secret: JoinSecret::from_bytes([0xa5; 32]),
            pins: vec![Fingerprint::from_bytes([7; 32])],
        };
        invitation.to_text().to_string()
    }

    fn wrong(raw: &RawJoin) -> String {
        join(raw).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_token_says_everything() {
        let raw = RawJoin { token: Some(text()), ..RawJoin::default() };
        let join = join(&raw).unwrap();
        assert_eq!(
            (join.shown.name.as_str(), join.shown.address.to_string().as_str()),
            ("east", "hub.example.com:9449")
        );
        let shown = format!("{raw:?}");
        assert!(!shown.contains("moorline-join"), "{shown}");
    }

    #[test]
    fn a_file_is_read_and_another_address_goes_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, format!("{}\n", text())).unwrap();
        let raw = RawJoin {
            token_file: Some(file),
            management_cluster_addr: Some("10.0.0.1".to_owned()),
            ..RawJoin::default()
        };
        assert_eq!(join(&raw).unwrap().shown.address.to_string(), "10.0.0.1:9449");
    }

    #[test]
    fn what_is_wrong_is_told_without_the_token() {
        let told = wrong(&RawJoin { token: Some("hunter2".to_owned()), ..RawJoin::default() });
        assert!(
            told.contains("TOKEN") && told.contains("moorline token create") && !told.contains("hunter2"),
            "{told}"
        );
        let cut = text()[..60].to_owned();
        let told = wrong(&RawJoin { token: Some(cut), ..RawJoin::default() });
        assert!(told.contains("copy the whole line"), "{told}");
        let told = wrong(&RawJoin { token_file: Some("/nowhere/token".into()), ..RawJoin::default() });
        assert!(told.contains("/nowhere/token"), "{told}");
        let attest = RawJoin {
            attest: true,
            name: Some("East".to_owned()),
            ca_pins: vec!["x".to_owned()],
            token: Some("jwt".to_owned()),
            ..RawJoin::default()
        };
        let told = wrong(&attest);
        assert!(told.contains("--name") && told.contains("--ca-pin"), "{told}");
    }
}

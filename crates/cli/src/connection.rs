//! Where the gateway is and as whom to talk to it: worked out from flags, environment and a state directory.
//!
//! Reads the files that are named; all that is wrong is told together.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use http::{Uri, uri::Scheme};
use moorline_pki::{certificates_from_pem, private_key_from_pem};
use moorline_server::bootstrap::StateDir;

use crate::{
    args::{ConnectArgs, GatewayArgs},
    failure::Failure,
    kubeconfig::Credential,
};

/// The file in a quickstart's state directory that says where its gateway listens.
pub(crate) const GATEWAY_URL: &str = "gateway-url";

/// Where the gateway of a state directory is that does not say.
const USUAL_GATEWAY: &str = "https://127.0.0.1:9443";

const TOKEN: &str = "MOORLINE_TOKEN";

/// A gateway, checked and complete.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// PEM.
    pub(crate) authorities: String,
    pub(crate) credential: Credential,
}

impl Connection {
    /// Flags first, then the environment, then the state directory.
    pub(crate) fn resolve(args: &ConnectArgs) -> Result<Self, Failure> {
        Self::resolve_as(args, credential(args))
    }

    /// The same, for somebody who will log in: the credential is an empty token.
    pub(crate) fn before_login(args: &GatewayArgs) -> Result<Self, Failure> {
        let args = ConnectArgs {
            server: args.server.clone(),
            certificate_authority: args.certificate_authority.clone(),
            state_dir: args.state_dir.clone(),
            ..ConnectArgs::default()
        };
        Self::resolve_as(&args, Some(Ok(Credential::Token(String::new()))))
    }

    fn resolve_as(args: &ConnectArgs, given: Option<Result<Credential, String>>) -> Result<Self, Failure> {
        let known = Known::find(args)?;
        let mut problems = Vec::new();
        let server = known_or(args.server.clone(), known.server, "--server: no gateway is named", &mut problems);
        let address = server.and_then(|server| note(parse_server(&server), &mut problems));
        let authorities = match &args.certificate_authority {
            Some(path) => note(read("--certificate-authority", path), &mut problems),
            None => known_or(None, known.authorities, "--certificate-authority: no authority is named", &mut problems),
        };
        let authorities = authorities.and_then(|pem| note(checked_authorities(pem, args), &mut problems));
        let credential = match given {
            Some(given) => note(given, &mut problems),
            None => {
                known_or(None, known.credential, "--token-file: no token and no certificate is given", &mut problems)
            }
        };
        match (address, authorities, credential) {
            (Some((host, port)), Some(authorities), Some(credential)) => {
                Ok(Self { host, port, authorities, credential })
            }
            _incomplete => Err(Failure::bad_input(problems).hint(
                "name a gateway with --server, --certificate-authority and --token-file, or its state directory with \
                 --state-dir; without either, a running `moorline quickstart` is used",
            )),
        }
    }

    /// The address for a URL.
    pub(crate) fn authority(&self) -> String {
        let host = &self.host;
        if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) }
    }

    /// The URL of a path on the gateway.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority())
    }
}

/// The directory in which quickstart keeps its state.
pub(crate) fn quickstart_dir() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local").join("state")));
    state.map(|state| state.join("moorline").join("quickstart"))
}

/// What a state directory tells.
#[derive(Default)]
struct Known {
    server: Option<String>,
    authorities: Option<String>,
    credential: Option<Credential>,
}

impl Known {
    fn find(args: &ConnectArgs) -> Result<Self, Failure> {
        match (&args.state_dir, quickstart_dir()) {
            (Some(named), _) if !StateDir::new(named).gateway_ca_certificate().exists() => {
                let what = format!("--state-dir: {} is not the state directory of a gateway", named.display());
                Err(Failure::bad_input([what]).hint("a gateway fills it on its first start"))
            }
            (Some(named), _) => Self::read(named),
            // Another gateway's token is not for a server that was named.
            (None, Some(default)) if args.server.is_none() && default.join(GATEWAY_URL).exists() => {
                Self::read(&default)
            }
            _nowhere => Ok(Self::default()),
        }
    }

    fn read(dir: &Path) -> Result<Self, Failure> {
        let state = StateDir::new(dir);
        let wrong =
            |path: &Path, error: &io::Error| Failure::because(&format!("cannot read {}", path.display()), error);
        let ca = state.gateway_ca_certificate();
        let url = dir.join(GATEWAY_URL);
        let server = match fs::read_to_string(&url) {
            Ok(url) => url.trim().to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => USUAL_GATEWAY.to_owned(),
            Err(error) => return Err(wrong(&url, &error)),
        };
        let token = state.admin_token().map_err(|error| wrong(&state.tokens(), &error))?;
        Ok(Self {
            server: Some(server),
            authorities: Some(fs::read_to_string(&ca).map_err(|error| wrong(&ca, &error))?),
            credential: token.map(Credential::Token),
        })
    }
}

fn parse_server(server: &str) -> Result<(String, u16), String> {
    let wrong = |why: &str| format!("--server: {server:?} {why}; write https://HOST:PORT");
    let uri: Uri = server.parse().map_err(|error| wrong(&format!("is not a URL ({error})")))?;
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(wrong("does not begin with https://"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("has a path"));
    }
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let host = authority.map(|authority| authority.host().trim_matches(['[', ']'])).filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| wrong("has no host"))?;
    Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
}

fn checked_authorities(pem: String, args: &ConnectArgs) -> Result<String, String> {
    let from = args.certificate_authority.as_ref().map_or_else(String::new, |path| format!(" {}", path.display()));
    match certificates_from_pem(pem.as_bytes()) {
        Ok(_certificates) => Ok(pem),
        Err(error) => Err(format!("--certificate-authority:{from}: {error}")),
    }
}

/// What flags and environment give, if anything.
fn credential(args: &ConnectArgs) -> Option<Result<Credential, String>> {
    if let (Some(certificate), Some(key)) = (&args.client_certificate, &args.client_key) {
        return Some(read_pair(certificate, key));
    }
    if let Some(path) = &args.token_file {
        return Some(read("--token-file", path).and_then(|token| checked_token(&token, "--token-file")));
    }
    let token = std::env::var_os(TOKEN).filter(|token| !token.is_empty())?;
    Some(checked_token(&token.to_string_lossy(), TOKEN))
}

fn checked_token(token: &str, from: &str) -> Result<Credential, String> {
    let token = token.trim();
    if token.is_empty() {
        return Err(format!("{from}: the token is empty"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{from}: the token holds spaces, line ends or characters beyond ASCII"));
    }
    Ok(Credential::Token(token.to_owned()))
}

fn read_pair(certificate: &Path, key: &Path) -> Result<Credential, String> {
    let certificate_pem = read("--client-certificate", certificate)?;
    let key_pem = read("--client-key", key)?;
    certificates_from_pem(certificate_pem.as_bytes())
        .map_err(|error| format!("--client-certificate: {}: {error}", certificate.display()))?;
    private_key_from_pem(key_pem.as_bytes()).map_err(|error| format!("--client-key: {}: {error}", key.display()))?;
    Ok(Credential::Certificate(certificate_pem, key_pem))
}

fn read(flag: &str, path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{flag}: cannot read {}: {error}", path.display()))
}

fn note<T>(result: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn known_or<T>(given: Option<T>, known: Option<T>, missing: &str, problems: &mut Vec<String>) -> Option<T> {
    note(given.or(known).ok_or_else(|| missing.to_owned()), problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_https_addresses() {
        for (text, host, port) in [
            ("https://gw.example:9443", "gw.example", 9443),
            ("https://gw.example/", "gw.example", 443),
            ("https://[::1]:9443", "::1", 9443),
        ] {
            assert_eq!(parse_server(text), Ok((host.to_owned(), port)));
        }
        for text in
            ["gw:9443", "http://gw:9443", "https://gw/clusters/x", "https://u:p@gw", "https://", "", "https://gw?x"]
        {
            assert!(parse_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_one_word() {
        assert!(matches!(checked_token(" abc.def\n", "x"), Ok(Credential::Token(token)) if token == "abc.def"));
        for token in ["", " \n", "a b", "a\nb", "zoë"] {
            let problem = checked_token(token, "--token-file").err().unwrap();
            assert!(problem.starts_with("--token-file: ") && !problem.contains("zo"), "{problem}");
        }
    }
}

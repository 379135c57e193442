//! Every TLS configuration of Moorline, in one place. Called by `client` and `server`.
//!
//! The cryptography is named in each (aws-lc), never taken from a process-wide default. No configuration resumes
//! sessions, sends tickets or accepts early data.

use std::sync::{Arc, LazyLock};

use moorline_model::Fingerprint;
use rustls::{
    ClientConfig, DistinguishedName, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;

use crate::{
    held_key::{AnyHolder, ThisLeaf},
    key_pair::KeyPair,
    pinned::Pinned,
    roots::Roots,
    signatures::verify_signatures,
};

/// What the gateway offers, best first.
pub(crate) const HTTP_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What ordinary requests to Guardian go by.
pub(crate) const H2_ALPN: [&[u8]; 1] = [b"h2"];

const TUNNEL_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];
/// kubectl and browsers of ten years' age still speak TLS 1.2.
const HTTPS_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// What Guardian speaks.
const GUARDIAN_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A TLS configuration that cannot be: roots without a usable authority, most often.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot configure TLS: {0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn missing_roots() -> Self {
        Self("no authority is given that client certificates must chain to".to_owned())
    }
}

impl From<rustls::Error> for ConfigError {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

/// The one cryptography provider.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    &PROVIDER
}

/// The tunnel door: TLS 1.3, a client certificate that chains to `roots` and is in its time.
pub(crate) fn tunnel_server(keys: &KeyPair, roots: &Roots, alpn: &[u8]) -> Result<Arc<ServerConfig>, ConfigError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots.store), Arc::clone(provider()))
        // An agent has one certificate to show; a list of our authorities would only tell strangers about us.
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| ConfigError(error.to_string()))?;
    server(TUNNEL_VERSIONS, verifier, Arc::clone(&keys.certified), vec![alpn.to_vec()])
}

/// The tunnel door for those who join: TLS 1.3, no client certificate, and all our authorities behind our own.
pub(crate) fn join_server(keys: &KeyPair, roots: &Roots, alpn: &[u8]) -> Result<Arc<ServerConfig>, ConfigError> {
    let mut chain = keys.certified.cert.clone();
    for authority in roots.certificates() {
        if !chain.contains(authority) {
            chain.push(authority.clone());
        }
    }
    let certified = Arc::new(CertifiedKey::new(chain, Arc::clone(&keys.certified.key)));
    server(TUNNEL_VERSIONS, WebPkiClientVerifier::no_client_auth(), certified, vec![alpn.to_vec()])
}

/// The tunnel door for Calico's Guardian: TLS 1.2 and 1.3, no application protocol, and any client certificate whose key
/// the peer holds.
pub(crate) fn guardian_server(keys: &KeyPair) -> Result<Arc<ServerConfig>, ConfigError> {
    let verifier = Arc::new(AnyHolder);
    let mut config = server(GUARDIAN_VERSIONS, verifier, Arc::clone(&keys.certified), Vec::new())?;
    // Without it a TLS 1.2 handshake is not bound to its certificates (RFC 7627). Go has it since 1.21.
    Arc::make_mut(&mut config).require_ems = true;
    Ok(config)
}

/// The gateway door: TLS 1.2 and 1.3, a client certificate only from those who have one, and then a valid one.
pub(crate) fn gateway_server(keys: &KeyPair, users: Option<&Roots>) -> Result<Arc<ServerConfig>, ConfigError> {
    let verifier = match users {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(roots) => WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots.store), Arc::clone(provider()))
            .allow_unauthenticated()
            .build()
            .map_err(|error| ConfigError(error.to_string()))?,
    };
    server(HTTPS_VERSIONS, verifier, Arc::clone(&keys.certified), HTTP_ALPN.map(<[u8]>::to_vec).to_vec())
}

fn server(
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ClientCertVerifier>,
    keys: Arc<CertifiedKey>,
    alpn: Vec<Vec<u8>>,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(keys)));
    config.alpn_protocols = alpn;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The agent's side of the tunnel: TLS 1.3, our certificate, the server's chained to `roots` and for the right name.
pub(crate) fn tunnel_client(keys: &KeyPair, roots: &Roots, alpn: &[u8]) -> Result<Arc<ClientConfig>, ConfigError> {
    client(TUNNEL_VERSIONS, chained(roots)?, Some(keys), vec![alpn.to_vec()])
}

/// The side of whoever joins: TLS 1.3, no certificate of our own, the server's chained to an authority with a pinned
/// key and for the right name.
pub(crate) fn join_client(pins: &[Fingerprint], alpn: &[u8]) -> Result<Arc<ClientConfig>, ConfigError> {
    client(TUNNEL_VERSIONS, Arc::new(Pinned::new(pins)), None, vec![alpn.to_vec()])
}

/// The side that sends requests to Guardian within a stream: TLS 1.2 and 1.3, no certificate and no server name of our
/// own, and the one certificate that the session came with.
pub(crate) fn inner_client(leaf: Fingerprint, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, ConfigError> {
    let verifier = Arc::new(ThisLeaf(leaf));
    let mut config = client(GUARDIAN_VERSIONS, verifier, None, alpn.iter().map(|name| name.to_vec()).collect())?;
    let ours = Arc::make_mut(&mut config);
    ours.require_ems = true;
    ours.enable_sni = false;
    Ok(config)
}

/// A plain HTTPS client, with a certificate of its own where it has one.
pub(crate) fn https_client(
    roots: &Roots,
    keys: Option<&KeyPair>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, ConfigError> {
    client(HTTPS_VERSIONS, chained(roots)?, keys, alpn.iter().map(|name| name.to_vec()).collect())
}

/// A plain HTTPS client that believes any certificate: whoever sits in between reads everything.
pub(crate) fn https_client_without_verification(
    keys: Option<&KeyPair>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, ConfigError> {
    let verifier = Arc::new(BelieveAnything);
    client(HTTPS_VERSIONS, verifier, keys, alpn.iter().map(|name| name.to_vec()).collect())
}

fn chained(roots: &Roots) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
    let store: Arc<RootCertStore> = Arc::clone(&roots.store);
    let verifier = WebPkiServerVerifier::builder_with_provider(store, Arc::clone(provider())).build();
    Ok(verifier.map_err(|error| ConfigError(error.to_string()))?)
}

fn client(
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
    keys: Option<&KeyPair>,
    alpn: Vec<Vec<u8>>,
) -> Result<Arc<ClientConfig>, ConfigError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match keys {
        None => builder.with_no_client_auth(),
        // Presented whatever authorities the server names, so that a wrong certificate is refused as such.
        Some(keys) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&keys.certified)))),
    };
    config.alpn_protocols = alpn;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Checks that the peer holds the key of the certificate it shows, and nothing else.
#[derive(Debug)]
struct BelieveAnything;

impl ServerCertVerifier for BelieveAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!(verify_tls12_signature, verify_tls13_signature);

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

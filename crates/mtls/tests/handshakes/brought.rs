//! Certificates as users of Calico bring them (see `fixtures/README.md`), shown by a TLS client or server that is none of
//! ours and shows whatever it is told to.

use std::sync::Arc;

use moorline_model::Fingerprint;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::minted::World;

/// What Guardian can speak.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate chain and a key, which need not belong together.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
}

/// The certificate of one fixture with the key of another, or its own.
pub(crate) fn brought(certificate: &str, key: &str) -> Shown {
    let file = |name: &str| {
        std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR")))
            .unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    Shown {
        chain: vec![CertificateDer::from_pem_slice(&file(&format!("{certificate}.crt"))).unwrap()],
        key: Arc::new(PrivateKeyDer::from_pem_slice(&file(&format!("{key}.key"))).unwrap()),
    }
}

impl Shown {
    pub(crate) fn from_pem(certificate: &str, key: &str) -> Self {
        Self {
            chain: vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            key: Arc::new(PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()),
        }
    }

    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        moorline_pki::fingerprint(self.leaf())
    }

    fn certified(&self) -> Arc<SingleCertAndKey> {
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(self.key.clone_key()).unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(self.chain.clone(), key)))
    }
}

/// A client that believes `world`, speaks one version, and shows what it is told to.
pub(crate) fn client(
    world: &World,
    shown: Option<&Shown>,
    version: &'static SupportedProtocolVersion,
    alpn: &[&[u8]],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.roots_pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(shown.certified()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// A server as Guardian is one within a stream.
pub(crate) fn server(shown: &Shown, version: &'static SupportedProtocolVersion, alpn: &[&[u8]]) -> TlsAcceptor {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(shown.certified());
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

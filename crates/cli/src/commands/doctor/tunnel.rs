//! The tunnel's door, as an agent finds it, up to the point at which it would show its certificate.

use std::sync::Arc;

use moorline_model::Finding;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{door, now};

/// The protocol of agents, in the TLS handshake.
const ALPN: &[u8] = b"moorline/1";

/// The name in the door's certificate, whatever its address is.
const NAME: &str = "moorline-tunnel";

/// Looks at the door at `HOST:PORT`.
pub(super) async fn examine(address: Option<&str>, findings: &mut Vec<Finding>) {
    let Some(address) = address else {
        return findings.push(Finding::skipped("tunnel", "its address is not known: name it with --tunnel-address"));
    };
    let split = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let Some((host, port)) = split else {
        let remedy = "correct --public-tunnel-address of the server, or --tunnel-address here";
        return findings.push(Finding::fail("tunnel", format!("{address:?} is no HOST:PORT"), remedy));
    };
    let host = host.trim_matches(['[', ']']);
    let Some(tcp) = door::reach("tunnel", host, port, findings).await else { return };
    match tokio::time::timeout(door::PATIENCE, chain(tcp)).await {
        Ok(Ok(chain)) => {
            findings.push(Finding::ok("tunnel-tls", "speaks TLS 1.3 and the protocol of agents"));
            findings.push(door::expiry("tunnel", &chain, now()));
        }
        Ok(Err(error)) => findings.push(Finding::fail(
            "tunnel-tls",
            error,
            "does something in between end TLS? agents need it passed through, to the server's tunnel port",
        )),
        Err(_elapsed) => findings.push(Finding::fail(
            "tunnel-tls",
            format!("no handshake within {:?}", door::PATIENCE),
            "is it that port? a proxy or load balancer may accept connections that it cannot pass on",
        )),
    }
}

/// The certificates that the door shows. They are looked at, not believed: nothing is said to whoever holds them.
async fn chain(tcp: TcpStream) -> Result<Vec<CertificateDer<'static>>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let onlooker = Arc::new(Onlooker(Arc::clone(&provider)));
    let tls = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let tls = tls.map_err(|error| error.to_string())?.dangerous().with_custom_certificate_verifier(onlooker);
    let mut tls = tls.with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let name = ServerName::try_from(NAME).map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.map_err(|error| error.to_string())?;
    let session = tls.get_ref().1;
    if session.alpn_protocol() != Some(ALPN) {
        return Err("what listens there does not speak the protocol of agents".to_owned());
    }
    Ok(session.peer_certificates().unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect())
}

/// Takes any certificate whose key is really there.
#[derive(Debug)]
struct Onlooker(Arc<CryptoProvider>);

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

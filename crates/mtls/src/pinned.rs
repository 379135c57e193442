//! Verifying a server of which only the SHA-256 of its authority's key is known: the pin that a join token carries.
//!
//! Called by `client`. The authority's certificate must be among those that the server shows. Once found there by its
//! pin, everything is verified as if it had been a root all along: chain, time, purpose and name.

use std::{error::Error, fmt, sync::Arc};

use moorline_model::Fingerprint;
use moorline_pki::CertificateInfo;
use rustls::{
    CertificateError, OtherError, RootCertStore,
    client::{
        WebPkiServerVerifier,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{config::provider, signatures::verify_signatures};

/// Certificates of a chain that are looked at. A door shows its own, and one or two for each authority of an overlap.
const MAX_CHAIN: usize = 16;

/// Believes servers whose chain ends in an authority with one of these keys.
#[derive(Debug)]
pub(crate) struct Pinned {
    pins: Vec<Fingerprint>,
}

/// None of the authorities that the server shows has the pinned key.
#[derive(Debug)]
pub(crate) struct NoneIsPinned;

impl Pinned {
    pub(crate) fn new(pins: &[Fingerprint]) -> Self {
        Self { pins: pins.to_vec() }
    }

    /// The authorities in a chain that have a pinned key.
    fn authorities(&self, chain: &[CertificateDer<'_>]) -> RootCertStore {
        let mut store = RootCertStore::empty();
        let pinned = chain.iter().take(MAX_CHAIN).filter(|certificate| {
            CertificateInfo::parse(certificate)
                .is_ok_and(|info| info.is_ca && self.pins.contains(&moorline_pki::fingerprint(&info.public_key)))
        });
        store.add_parsable_certificates(pinned.map(|certificate| certificate.clone().into_owned()));
        store
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = self.authorities(intermediates);
        if roots.is_empty() {
            return Err(CertificateError::Other(OtherError(Arc::new(NoneIsPinned))).into());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider()))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    verify_signatures!(verify_tls12_signature, verify_tls13_signature);
}

impl fmt::Display for NoneIsPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no authority that the server shows has the pinned key")
    }
}

impl Error for NoneIsPinned {}

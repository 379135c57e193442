//! Certificates that people bring for their clusters: what such a record means to the registry.
//!
//! The certificate in a record stands for its cluster beside those that were signed here, as long as it is there. It is
//! not among the record's fingerprints, so that taking it out of the record is enough to end it.

use moorline_model::{ActiveFingerprint, ClusterRecord};
use moorline_pki::{CertificateInfo, certificates_from_pem};

/// The fingerprint of the certificate in a record, if it has one.
///
/// # Errors
/// Why it can stand for nobody, for people.
pub(crate) fn certificate(record: &ClusterRecord) -> Result<Option<ActiveFingerprint>, String> {
    let Some(pem) = &record.certificate else { return Ok(None) };
    let certificates = certificates_from_pem(pem.as_bytes()).map_err(|error| format!("spec.certificate: {error}"))?;
    let first = certificates.first().ok_or("spec.certificate: it holds no certificate")?;
    let info = CertificateInfo::parse(first).map_err(|error| format!("spec.certificate: {error}"))?;
    if info.is_ca || !info.for_clients {
        return Err("spec.certificate: it is not one that a TLS client may present".to_owned());
    }
    Ok(Some(ActiveFingerprint { fingerprint: info.fingerprint, not_after: info.not_after }))
}

/// The record as it counts: with the certificate that was brought, unless it was revoked.
pub(crate) fn effective(record: &ClusterRecord) -> ClusterRecord {
    let mut effective = record.clone();
    if record.revoked.is_none()
        && let Ok(Some(brought)) = certificate(record)
        && !record.retired.contains(&brought.fingerprint)
        && !record.accepts(&brought.fingerprint)
    {
        effective.fingerprints.push(brought);
    }
    effective
}

/// Remembers the certificate that was brought as one that stands for the cluster no more: a later enrolment does not
/// bring it back.
pub(crate) fn retire(record: &mut ClusterRecord) {
    if let Ok(Some(brought)) = certificate(record)
        && !record.retired.contains(&brought.fingerprint)
    {
        record.fingerprints.push(brought);
        record.retire(|active| active.fingerprint != brought.fingerprint);
    }
}

//! Certificates that people bring for their clusters: what such a record means to the registry.
//!
//! The certificate in a record stands for its cluster beside those that were signed here, as long as it is there. It is
//! not among the record's fingerprints, so that taking it out of the record is enough to end it.

use moorline_model::{ActiveFingerprint, ClusterRecord, Dialect};
use moorline_pki::{CertificateInfo, certificates_from_pem};

/// What precedes the name of its cluster in a certificate that was signed here.
const CLUSTER: &str = "moorline:cluster:";

/// What precedes the uid of its cluster there.
const CLUSTER_UID: &str = "moorline:cluster-uid:";

/// The fingerprint of the certificate in a record, if it has one.
///
/// # Errors
/// Why it can stand for nobody, for people.
pub(crate) fn certificate(record: &ClusterRecord) -> Result<Option<ActiveFingerprint>, String> {
    let Some(pem) = &record.certificate else { return Ok(None) };
    let certificates = certificates_from_pem(pem.as_bytes()).map_err(|error| format!("spec.certificate: {error}"))?;
    let first = certificates.first().ok_or("spec.certificate: it holds no certificate")?;
    let info = CertificateInfo::parse(first).map_err(|error| format!("spec.certificate: {error}"))?;
    info.key_kind.check_usable().map_err(|error| format!("spec.certificate: {error}"))?;
    // Guardian's may be of any make, as Calico's own recipe has them: it is known by its fingerprint alone.
    if record.dialect == Dialect::Moorline && (info.is_ca || !info.for_clients) {
        return Err("spec.certificate: it is not one that a TLS client may present".to_owned());
    }
    // One that was signed here says whose it is, and of several clusters of a name which.
    let uid = record.uid.to_string();
    let others =
        |prefix: &str, own: &str| info.uris.iter().filter_map(|uri| uri.strip_prefix(prefix)).any(|said| said != own);
    if others(CLUSTER, record.name.as_str()) || others(CLUSTER_UID, &uid) {
        return Err("spec.certificate: it is another cluster's".to_owned());
    }
    Ok(Some(ActiveFingerprint {
        fingerprint: info.fingerprint,
        not_after: info.not_after,
        dialect: record.dialect,
        renews: None,
    }))
}

/// The record as it counts: with the certificate that was brought; without any while it is revoked, whatever it lists.
pub(crate) fn effective(record: &ClusterRecord) -> ClusterRecord {
    let mut effective = record.clone();
    if record.revoked.is_some() {
        effective.fingerprints.clear();
        return effective;
    }
    if let Ok(Some(brought)) = certificate(record)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use moorline_ca::Authority;
    use moorline_model::{ClusterUid, Timestamp};

    use super::*;

    fn east(certificate: &str) -> ClusterRecord {
        let created = Timestamp::from_unix_seconds(1_000_000_000);
        let mut record = ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([1; 16]), created);
        record.certificate = Some(certificate.to_owned());
        record
    }

    /// An authority with a certificate of its own making for a cluster, which says so, and one that says nothing.
    fn signed_for(cluster: &str) -> (Authority, String, String) {
        let now = Timestamp::from_unix_seconds(1_000_000_000);
        let life = Duration::from_secs(3600);
        let authority = Authority::generate("test", now, life).unwrap();
        let issued = authority.issue_agent(&cluster.parse().unwrap(), &ClusterUid::from_bytes([2; 16]), now, life);
        let certificate = issued.unwrap().certificate_pem;
        let silent = authority.issue_user("agent", &[], now, life).unwrap().certificate_pem;
        (authority, certificate, silent)
    }

    #[test]
    fn counts_as_long_as_it_is_in_the_record() {
        let (_, _, certificate) = signed_for("east");
        let mut record = east(&certificate);
        let counts = effective(&record);
        assert_eq!(counts.fingerprints.len(), 1);
        assert_eq!(effective(&counts), counts);
        record.certificate = None;
        assert!(effective(&record).fingerprints.is_empty());
    }

    #[test]
    fn what_is_no_agents_or_another_clusters_counts_for_nothing() {
        let (authority, of_west, _) = signed_for("west");
        let (_, of_an_earlier_east, _) = signed_for("east");
        for (wrong, why) in [
            ("nonsense", "spec.certificate"),
            (of_west.as_str(), "another cluster's"),
            (of_an_earlier_east.as_str(), "another cluster's"),
            (authority.certificate_pem(), "TLS client"),
        ] {
            let record = east(wrong);
            assert!(certificate(&record).unwrap_err().contains(why), "{wrong}");
            assert!(effective(&record).fingerprints.is_empty());
        }
    }

    /// Made by Calico's documented recipe: `openssl x509 -req -signkey`, which gives version 1, self-signed and without a
    /// name but its subject's. Nobody has its key.
    const VERSION_1: &str = include_str!("../../tests/fixtures/version-1.crt");

    /// The same with a key of 1024 bits.
    const WEAK: &str = include_str!("../../../mtls/tests/fixtures/rsa-1024.crt");

    #[test]
    fn a_guardians_may_be_of_any_make_but_no_other_clusters() {
        let (authority, of_west, _) = signed_for("west");
        for (dialect, pem, good) in [
            (Dialect::Guardian, VERSION_1, true),
            (Dialect::Guardian, authority.certificate_pem(), true),
            (Dialect::Guardian, of_west.as_str(), false),
            (Dialect::Guardian, WEAK, false),
            (Dialect::Guardian, "nonsense", false),
        ] {
            let record = ClusterRecord { dialect, ..east(pem) };
            let counts = effective(&record).fingerprints;
            assert_eq!(counts.len(), usize::from(good), "{dialect} {pem}");
            assert!(counts.iter().all(|active| active.dialect == Dialect::Guardian));
        }
    }

    #[test]
    fn once_revoked_it_does_not_come_back() {
        let (_, _, certificate) = signed_for("east");
        let mut record = east(&certificate);
        record.fingerprints.push(effective(&record).fingerprints[0]);
        record.revoked = Some(Timestamp::from_unix_seconds(1_000_000_001));
        assert!(effective(&record).fingerprints.is_empty());
        record.fingerprints.clear();
        retire(&mut record);
        assert!(record.fingerprints.is_empty());
        record.revoked = None;
        assert!(effective(&record).fingerprints.is_empty());
    }
}

//! What may be asked for where a cluster's agent is Calico's Guardian, and what only there. Pure.
//!
//! Called when a cluster is registered or migrates, before anything is made.

use moorline_model::{ClusterRecord, ClusterUid, Dialect, Timestamp};

use super::clusters::Meant;
use crate::clusters::brought;

/// Bytes of a certificate that is brought, as the custom resource has them.
const MAX_CERTIFICATE: usize = 32 * 1024;

/// What is not shown of what was sent.
const UNSHOWN: &str = "not shown";

/// Whether dialect, certificate and all else fit together.
///
/// # Errors
/// The field, its value as far as it is to be shown, and what is wrong with it.
pub(super) fn fits(meant: &Meant) -> Result<(), (&'static str, String, String)> {
    let wrong = |field, value: &str, why: &str| Err((field, value.to_owned(), why.to_owned()));
    match meant.dialect {
        Dialect::Moorline if meant.certificate.is_some() => {
            let why = "Moorline's own agent shows a certificate that is signed here, for a key of its own where it \
                       joins; only for dialect guardian one is brought";
            return wrong("spec.certificate", UNSHOWN, why);
        }
        Dialect::Moorline => {}
        Dialect::Guardian if meant.join.is_some() || meant.attestation.is_some() => {
            let why = "Calico's Guardian cannot join; it is enrolled by a manifest";
            return wrong("spec.dialect", "guardian", why);
        }
        Dialect::Guardian => {}
    }
    if let Some(namespace) = &meant.operator_namespace
        && !is_label(namespace)
    {
        return wrong("spec.operatorNamespace", namespace, "must be the name of a namespace");
    }
    let Some(certificate) = &meant.certificate else { return Ok(()) };
    if certificate.len() > MAX_CERTIFICATE {
        return wrong("spec.certificate", UNSHOWN, "must have at most 32768 bytes");
    }
    if certificate.contains("PRIVATE KEY") {
        return wrong("spec.certificate", UNSHOWN, "never send a private key: it holds one, which others may know now");
    }
    let record = ClusterRecord {
        dialect: meant.dialect,
        certificate: meant.certificate.clone(),
        // Nobody has its uid yet, so a certificate that names one is another cluster's.
        ..ClusterRecord::new(meant.name.clone(), ClusterUid::from_bytes([0; 16]), Timestamp::from_unix_seconds(0))
    };
    brought::certificate(&record)
        .map(drop)
        .or_else(|why| wrong("spec.certificate", UNSHOWN, why.strip_prefix("spec.certificate: ").unwrap_or(&why)))
}

/// Whether Kubernetes takes the text as the name of a namespace.
pub(super) fn is_label(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(good) && !text.starts_with('-') && !text.ends_with('-')
}

//! Records to objects and back, and objects that others wrote.

use moorline_model::Fingerprint;
use serde_json::json;

use super::*;

const UID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn object(extra: &serde_json::Value) -> ManagedCluster {
    let mut value = json!({
        "apiVersion": "moorline.io/v1alpha1",
        "kind": "ManagedCluster",
        "metadata": {
            "name": "east",
            "uid": UID,
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-21T03:53:00Z",
        },
        "spec": {},
    });
    for (key, part) in extra.as_object().unwrap() {
        value[key] = part.clone();
    }
    serde_json::from_value(value).unwrap()
}

pub(in super::super) fn full() -> ClusterRecord {
    let moment = Timestamp::from_unix_seconds;
    let print = |number| Fingerprint::from_bytes([number; 32]);
    let mut record =
        ClusterRecord::new("east".parse().unwrap(), ClusterUid::from_bytes([7; 16]), moment(1_700_000_000));
    record.labels.insert("zone".into(), "eu".into());
    record.dialect = model::Dialect::Guardian;
    record.operator_namespace = Some("tigera-operator".into());
    record.certificate = Some("-----BEGIN CERTIFICATE-----".into());
    record.attestation = Some(model::Attestation {
        issuer: "https://issuer".into(),
        audience: "moorline".into(),
        subject: "system:serviceaccount:moorline:moorline-agent".into(),
        jwks: None,
    });
    record.fingerprints.push(ActiveFingerprint {
        fingerprint: print(1),
        not_after: moment(2_000_000_000),
        dialect: model::Dialect::Guardian,
        renews: Some(print(2)),
    });
    record.retired.push(print(2));
    record.revoked = Some(moment(1_800_000_000));
    record.join_tokens.push(model::JoinToken {
        id: "abc".into(),
        hash: print(3),
        created: moment(1_700_000_001),
        expires: moment(1_700_003_601),
        created_by: "admin".into(),
        used: Some(moment(1_700_000_002)),
        used_for: Some(print(4)),
        certificate: Some("PEM".to_owned()),
    });
    record
}

#[test]
fn a_record_survives_being_an_object() {
    let record = full();
    let mut kept = new(&record);
    kept.status = Some(status(&record));
    kept.metadata.uid = Some(UID.into());
    let read = ClusterObject::read(&kept).unwrap();
    assert_eq!((read.record, read.problems), (record, Vec::new()));
    assert_eq!(read.identified.uid, UID);
}

#[test]
fn what_people_make_needs_a_name_and_nothing_else() {
    let read = ClusterObject::read(&object(&json!({}))).unwrap();
    assert_eq!(read.record.uid.to_string(), UID);
    assert_eq!(read.record.created.to_string(), "2026-11-21T03:53:00Z");
    assert!(read.record.fingerprints.is_empty() && read.problems.is_empty());
}

#[test]
fn what_cannot_be_read_lets_nobody_in() {
    let hash = "00".repeat(32);
    let time = "2026-11-21T03:53:00Z";
    let status = json!({
        "uid": "nobody",
        "fingerprints": [{ "fingerprint": "zz", "notAfter": time }, { "fingerprint": hash, "notAfter": "never" }],
        "revoked": "sometime",
        "joinTokens": [
            { "id": "a", "hash": "x", "created": time, "expires": time, "createdBy": "b" },
            { "id": "a", "hash": hash, "created": time, "expires": time, "createdBy": "b", "used": "perhaps" },
        ],
    });
    let read = ClusterObject::read(&object(&json!({ "status": status }))).unwrap();
    assert_eq!(read.record.uid.to_string(), UID);
    assert!(read.record.fingerprints.is_empty() && read.record.join_tokens.is_empty());
    assert!(read.record.revoked.is_some());
    assert_eq!(read.problems.len(), 6, "{:?}", read.problems);
}

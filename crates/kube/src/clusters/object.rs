//! A `ManagedCluster` object read as a record, and the object that is made for a new record.
//!
//! Objects come from people as well as from us, and whoever may write the status of one may write anything there. So
//! what cannot be read counts for nothing, and is told: a fingerprint that is none lets nobody in.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_model as model;
use moorline_model::{ActiveFingerprint, ClusterName, ClusterRecord, ClusterUid, Timestamp};

use super::{
    observed::Observed,
    resource::{Attestation, Certificate, JoinToken, ManagedCluster, ManagedClusterSpec, ManagedClusterStatus},
};

/// An object as the server needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterObject {
    /// What it asks for and what is remembered of it.
    pub record: ClusterRecord,
    /// Which object it is, in which state.
    pub identified: Identified,
    /// When the object was made, by the kube-apiserver's clock.
    pub made: Timestamp,
    /// What its status says that we observed.
    pub observed: Observed,
    /// What in it counts for nothing, in words for people.
    pub problems: Vec<String>,
}

/// Which object of a name it is, and in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identified {
    /// The object's own uid.
    pub uid: String,
    /// Its resource version.
    pub resource_version: String,
}

impl ClusterObject {
    /// Reads an object; the error says why it is no cluster at all.
    pub(super) fn read(object: &ManagedCluster) -> Result<Self, String> {
        let name: ClusterName = object.metadata.name.as_deref().unwrap_or_default().parse().map_err(words)?;
        if name.is_reserved() {
            return Err(format!("the name {name} stands for the management cluster itself"));
        }
        let own_uid = object.metadata.uid.clone().unwrap_or_default();
        let created = object.metadata.creation_timestamp.as_ref();
        let made = Timestamp::from_unix_seconds(created.map_or(0, |time| time.0.as_second()));
        let mut reading = Reading(Vec::new());
        let none = ManagedClusterStatus::default();
        let status = object.status.as_ref().unwrap_or(&none);
        let uid: Option<ClusterUid> = status.uid.as_deref().and_then(|uid| reading.parse("status.uid", uid));
        let uid = uid.map_or_else(|| own_uid.parse().map_err(words), Ok)?;
        let registered = status.registered.as_deref().and_then(|time| reading.parse("status.registered", time));
        let mut record = ClusterRecord::new(name, uid, registered.unwrap_or(made));
        asked(&mut record, object);
        reading.remembered(&mut record, status);
        Ok(Self {
            record,
            made,
            identified: Identified {
                uid: own_uid,
                resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            },
            observed: Observed::read(status),
            problems: reading.0,
        })
    }
}

/// The object for a new record, whose status is written after it.
pub(super) fn new(record: &ClusterRecord) -> ManagedCluster {
    let labels = (!record.labels.is_empty()).then(|| record.labels.clone());
    ManagedCluster {
        metadata: ObjectMeta { name: Some(record.name.to_string()), labels, ..ObjectMeta::default() },
        spec: spec(record),
        status: None,
    }
}

/// What a record asks for.
pub(super) fn spec(record: &ClusterRecord) -> ManagedClusterSpec {
    ManagedClusterSpec {
        dialect: record.dialect.into(),
        operator_namespace: record.operator_namespace.clone(),
        certificate: record.certificate.clone(),
        attestation: record.attestation.as_ref().map(|attestation| Attestation {
            issuer: attestation.issuer.clone(),
            audience: attestation.audience.clone(),
            subject: attestation.subject.clone(),
            jwks: attestation.jwks.clone(),
        }),
    }
}

/// What must be remembered of a record; what is observed is left out.
pub(super) fn status(record: &ClusterRecord) -> ManagedClusterStatus {
    let text = |value: &Timestamp| value.to_string();
    let certificate = |active: &ActiveFingerprint| Certificate {
        fingerprint: active.fingerprint.to_string(),
        not_after: text(&active.not_after),
        dialect: active.dialect.into(),
        renews: active.renews.as_ref().map(ToString::to_string),
    };
    let token = |token: &model::JoinToken| JoinToken {
        id: token.id.clone(),
        hash: token.hash.to_string(),
        created: text(&token.created),
        expires: text(&token.expires),
        created_by: token.created_by.clone(),
        used: token.used.as_ref().map(text),
        used_for: token.used_for.as_ref().map(ToString::to_string),
        certificate: token.certificate.clone(),
    };
    ManagedClusterStatus {
        uid: Some(record.uid.to_string()),
        registered: Some(text(&record.created)),
        fingerprints: record.fingerprints.iter().map(certificate).collect(),
        retired: record.retired.iter().map(ToString::to_string).collect(),
        revoked: record.revoked.as_ref().map(text),
        join_tokens: record.join_tokens.iter().map(token).collect(),
        ..ManagedClusterStatus::default()
    }
}

fn asked(record: &mut ClusterRecord, object: &ManagedCluster) {
    record.labels = object.metadata.labels.clone().unwrap_or_default();
    record.dialect = object.spec.dialect.into();
    record.operator_namespace.clone_from(&object.spec.operator_namespace);
    record.certificate.clone_from(&object.spec.certificate);
    record.attestation = object.spec.attestation.as_ref().map(|attestation| model::Attestation {
        issuer: attestation.issuer.clone(),
        audience: attestation.audience.clone(),
        subject: attestation.subject.clone(),
        jwks: attestation.jwks.clone(),
    });
}

/// What was found that counts for nothing.
struct Reading(Vec<String>);

impl Reading {
    fn parse<T: FromStr>(&mut self, field: &str, text: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        text.parse().map_err(|error: T::Err| self.0.push(format!("{field}: {error}"))).ok()
    }

    fn remembered(&mut self, record: &mut ClusterRecord, status: &ManagedClusterStatus) {
        for certificate in &status.fingerprints {
            let fingerprint = self.parse("status.fingerprints", &certificate.fingerprint);
            let not_after = self.parse("status.fingerprints", &certificate.not_after);
            let Some((fingerprint, not_after)) = fingerprint.zip(not_after) else { continue };
            let dialect = certificate.dialect.into();
            let renews = certificate.renews.as_deref().and_then(|text| self.parse("status.fingerprints", text));
            record.fingerprints.push(ActiveFingerprint { fingerprint, not_after, dialect, renews });
        }
        for retired in &status.retired {
            record.retired.extend(self.parse::<model::Fingerprint>("status.retired", retired));
        }
        if let Some(revoked) = &status.revoked {
            // One that cannot be read is a revocation all the same.
            let moment = self.parse("status.revoked", revoked);
            record.revoked = Some(moment.unwrap_or(record.created));
        }
        for token in &status.join_tokens {
            record.join_tokens.extend(self.token(token));
        }
    }

    /// Nothing of a token that cannot be read in full: it might have been used, or have expired.
    fn token(&mut self, token: &JoinToken) -> Option<model::JoinToken> {
        const FIELD: &str = "status.joinTokens";
        let used = token.used.as_deref().map(|used| self.parse(FIELD, used));
        let used_for = token.used_for.as_deref().map(|key| self.parse(FIELD, key));
        if matches!(used, Some(None)) || matches!(used_for, Some(None)) {
            return None;
        }
        Some(model::JoinToken {
            id: token.id.clone(),
            hash: self.parse(FIELD, &token.hash)?,
            created: self.parse(FIELD, &token.created)?,
            expires: self.parse(FIELD, &token.expires)?,
            created_by: token.created_by.clone(),
            used: used.flatten(),
            used_for: used_for.flatten(),
            certificate: token.certificate.clone(),
        })
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
pub(super) mod tests;

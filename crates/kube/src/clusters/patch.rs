//! Changes of a record as merge patches of its object. Each names the state that it was made from, so that the
//! kube-apiserver refuses it when somebody else was quicker.

use moorline_model::ClusterRecord;
use serde_json::{Map, Value, json};

use super::object::{self, Identified};

/// What a merge patch removes when the value is empty.
const REMEMBERED: [&str; 6] = ["uid", "registered", "fingerprints", "retired", "revoked", "joinTokens"];
const ASKED: [&str; 4] = ["dialect", "operatorNamespace", "certificate", "attestation"];

/// The first status of an object that was just made.
pub(super) fn first_status(uid: &str, record: &ClusterRecord) -> Value {
    json!({ "metadata": { "uid": uid }, "status": fields(&object::status(record), &REMEMBERED) })
}

/// What changes in labels and specification, if anything.
pub(super) fn of_spec(known: &Identified, before: &ClusterRecord, after: &ClusterRecord) -> Option<Value> {
    let mut labels = Map::new();
    for gone in before.labels.keys().filter(|key| !after.labels.contains_key(*key)) {
        labels.insert(gone.clone(), Value::Null);
    }
    for (key, value) in after.labels.iter().filter(|(key, value)| before.labels.get(*key) != Some(*value)) {
        labels.insert(key.clone(), json!(value));
    }
    let (old, new) = (object::spec(before), object::spec(after));
    if labels.is_empty() && old == new {
        return None;
    }
    let mut patch = json!({ "metadata": metadata(known) });
    if !labels.is_empty() {
        patch["metadata"]["labels"] = Value::Object(labels);
    }
    if old != new {
        patch["spec"] = fields(&new, &ASKED);
    }
    Some(patch)
}

/// What changes in what must be remembered, if anything.
pub(super) fn of_status(known: &Identified, before: &ClusterRecord, after: &ClusterRecord) -> Option<Value> {
    let (old, new) = (object::status(before), object::status(after));
    (old != new).then(|| json!({ "metadata": metadata(known), "status": fields(&new, &REMEMBERED) }))
}

fn metadata(known: &Identified) -> Value {
    json!({ "uid": known.uid, "resourceVersion": known.resource_version })
}

/// These fields of a value; those that it leaves out are removed.
fn fields(value: &impl serde::Serialize, names: &[&str]) -> Value {
    let value = serde_json::to_value(value).unwrap_or_default();
    let field = |name: &&str| ((*name).to_owned(), value.get(*name).cloned().unwrap_or_default());
    Value::Object(names.iter().map(field).collect())
}

#[cfg(test)]
mod tests {
    use super::{super::object::tests::full, *};

    fn known() -> Identified {
        Identified { uid: "u".into(), resource_version: "7".into() }
    }

    #[test]
    fn touches_what_changed_and_removes_what_is_gone() {
        let before = full();
        assert_eq!(of_spec(&known(), &before, &before), None);
        assert_eq!(of_status(&known(), &before, &before), None);
        let mut after = before.clone();
        after.labels.clear();
        after.labels.insert("tier".into(), "1".into());
        after.certificate = None;
        let patch = of_spec(&known(), &before, &after).unwrap();
        assert_eq!(patch["metadata"]["labels"], json!({ "zone": null, "tier": "1" }));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert!(patch["spec"].as_object().unwrap()["certificate"].is_null());
        assert_eq!(patch["spec"]["dialect"], "guardian");
        assert_eq!(of_status(&known(), &before, &after), None);

        after.revoked = None;
        after.join_tokens.clear();
        let patch = of_status(&known(), &before, &after).unwrap();
        let status = patch["status"].as_object().unwrap();
        assert!(status["revoked"].is_null() && status["joinTokens"].is_null());
        assert!(!status.contains_key("conditions"), "what is observed is not touched");
    }
}

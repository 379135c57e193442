//! Objects of the management API as tables. Pure but for [`now`].
//!
//! Works on the JSON as it came, so that `-o json` shows what a newer gateway says and an older one does not.

mod description;
mod summary;

use moorline_api::condition;
use moorline_demo::age;
use moorline_model::Timestamp;
use serde_json::Value;

use crate::{
    failure::Failure,
    printer::{Printer, Table},
};

pub(super) use description::description;
pub(super) use summary::summary;

const UNKNOWN: &str = "<unknown>";

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    Timestamp::from(std::time::SystemTime::now()).unix_seconds()
}

/// `moorline cluster list`.
pub(super) fn clusters(list: &Value, now: i64, wide: bool) -> Table {
    let mut header = vec!["NAME", "CONNECTED", "SESSIONS", "AGE"];
    if wide {
        header.extend(["DIALECT", "KUBERNETES", "AGENT", "LABELS", "UID"]);
    }
    let mut table = Table::new(&header);
    for cluster in items(list) {
        let mut cells = vec![
            text(cluster, "/metadata/name"),
            connected(cluster),
            sessions(cluster).len().to_string(),
            age_of(cluster, now),
        ];
        if wide {
            cells.extend([
                text(cluster, "/spec/dialect"),
                text(cluster, "/status/kubernetesVersion"),
                text(cluster, "/status/agentVersion"),
                labels(cluster),
                text(cluster, "/metadata/uid"),
            ]);
        }
        table.row(cells);
    }
    table
}

/// `moorline status`.
pub(super) fn status(list: &Value, now: i64, wide: bool) -> Table {
    let mut header = vec!["NAME", "CONNECTED", "SINCE", "SESSIONS", "RTT", "KUBERNETES", "CERTIFICATE"];
    if wide {
        header.extend(["AGENT", "FROM", "OUTSTANDING", "PROBED", "REASON"]);
    }
    let mut table = Table::new(&header);
    for cluster in items(list) {
        let condition = connectedness(cluster);
        let mut cells = vec![
            text(cluster, "/metadata/name"),
            connected(cluster),
            condition.map_or_else(|| UNKNOWN.to_owned(), |condition| since(condition.get("lastTransitionTime"), now)),
            sessions(cluster).len().to_string(),
            rtt(cluster),
            text(cluster, "/status/kubernetesVersion"),
            certificate(cluster, now),
        ];
        if wide {
            let each = |field| sessions(cluster).iter().map(|session| scalar(session.get(field))).collect::<Vec<_>>();
            cells.extend([
                text(cluster, "/status/agentVersion"),
                each("remoteAddress").join(","),
                each("outstanding").join(","),
                condition
                    .and_then(|condition| condition.get("lastProbeTime"))
                    .map_or_else(String::new, |probed| since(Some(probed), now)),
                condition.map_or_else(String::new, |condition| scalar(condition.get("reason"))),
            ]);
        }
        table.row(cells);
    }
    table
}

/// `-o name`.
pub(super) fn names(list: &Value, printer: &mut Printer<'_>) -> Result<(), Failure> {
    items(list).try_for_each(|cluster| printer.line(&name(&text(cluster, "/metadata/name"))))
}

/// `moorline user list`.
pub(super) fn users(list: &Value) -> Table {
    let mut table = Table::new(&["NAME", "GROUPS", "UID", "TOKEN-ID"]);
    for user in items(list) {
        let groups = user.pointer("/spec/groups").and_then(Value::as_array);
        let groups: Vec<_> = groups.into_iter().flatten().map(|group| scalar(Some(group))).collect();
        let groups = groups.join(",");
        table.row([text(user, "/metadata/name"), groups, text(user, "/spec/uid"), text(user, "/spec/tokenId")]);
    }
    table
}

/// `moorline user list -o name`.
pub(super) fn user_names(list: &Value, printer: &mut Printer<'_>) -> Result<(), Failure> {
    items(list).try_for_each(|user| printer.line(&user_name(&text(user, "/metadata/name"))))
}

/// `moorline token list`.
pub(super) fn join_tokens(list: &Value) -> Table {
    let mut table = Table::new(&["ID", "CLUSTER", "PHASE", "EXPIRES", "USED", "CREATED-BY"]);
    for token in items(list) {
        table.row([
            text(token, "/metadata/name"),
            text(token, "/spec/cluster"),
            text(token, "/status/phase"),
            text(token, "/spec/expires"),
            text(token, "/status/used"),
            text(token, "/spec/createdBy"),
        ]);
    }
    table
}

/// `moorline token list -o name`.
pub(super) fn join_token_names(list: &Value, printer: &mut Printer<'_>) -> Result<(), Failure> {
    items(list).try_for_each(|token| printer.line(&join_token_name(&text(token, "/metadata/name"))))
}

/// A join token as kubectl names a resource.
pub(super) fn join_token_name(id: &str) -> String {
    format!("jointoken.moorline.io/{id}")
}

/// A user as kubectl names a resource.
pub(super) fn user_name(name: &str) -> String {
    format!("user.moorline.io/{name}")
}

/// A cluster as kubectl names a resource.
pub(super) fn name(cluster: &str) -> String {
    format!("managedcluster.moorline.io/{cluster}")
}

/// The items of a list, or the object itself.
fn items(list: &Value) -> impl Iterator<Item = &Value> {
    match list.get("items").and_then(Value::as_array) {
        Some(items) => items.iter(),
        None => std::slice::from_ref(list).iter(),
    }
}

fn connected(cluster: &Value) -> String {
    connectedness(cluster).map_or_else(|| "Unknown".to_owned(), |condition| scalar(condition.get("status")))
}

fn connectedness(cluster: &Value) -> Option<&Value> {
    let conditions = cluster.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == condition::CONNECTED)
}

fn sessions(cluster: &Value) -> &[Value] {
    cluster.pointer("/status/sessions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The shortest of the sessions' round trips.
fn rtt(cluster: &Value) -> String {
    let times = sessions(cluster).iter().filter_map(|session| session.get("rttMs")?.as_f64());
    times
        .reduce(f64::min)
        .map_or_else(String::new, |ms| if ms < 10.0 { format!("{ms:.1}ms") } else { format!("{ms:.0}ms") })
}

/// How long the certificate lasts.
fn certificate(cluster: &Value, now: i64) -> String {
    match moment(cluster.pointer("/status/certificateExpiry")) {
        Some(end) if end <= now => format!("expired {} ago", age::human(now - end)),
        Some(end) => age::human(end - now),
        None => UNKNOWN.to_owned(),
    }
}

fn age_of(cluster: &Value, now: i64) -> String {
    since(cluster.pointer("/metadata/creationTimestamp"), now)
}

fn since(value: Option<&Value>, now: i64) -> String {
    moment(value).map_or_else(|| UNKNOWN.to_owned(), |then| age::human(now - then))
}

fn moment(value: Option<&Value>) -> Option<i64> {
    value?.as_str()?.parse::<Timestamp>().ok().map(|moment| moment.unix_seconds())
}

fn labels(cluster: &Value) -> String {
    let labels = cluster.pointer("/metadata/labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", scalar(Some(value))));
    pairs.collect::<Vec<_>>().join(",")
}

fn text(object: &Value, pointer: &str) -> String {
    scalar(object.pointer(pointer))
}

fn scalar(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 2026-11-21T03:53:00Z.
    const NOW: i64 = 1_795_233_180;

    fn list() -> Value {
        json!({"items": [
            {
                "metadata": {"name": "demo", "uid": "u-1", "creationTimestamp": "2026-11-21T00:41:00Z",
                             "labels": {"tier": "test", "env": "x"}},
                "spec": {"dialect": "moorline"},
                "status": {
                    "conditions": [{"type": "Other", "status": "False"},
                                   {"type": "ManagedClusterConnected", "status": "True", "reason": "ProbeSucceeded",
                                    "lastTransitionTime": "2026-11-21T03:50:45Z",
                                    "lastProbeTime": "2026-11-21T03:52:51Z"}],
                    "sessions": [{"rttMs": 12.6, "remoteAddress": "10.0.0.1:5", "outstanding": 3},
                                 {"rttMs": 0.43, "remoteAddress": "10.0.0.2:6", "outstanding": 0}],
                    "kubernetesVersion": "v1.33.1", "agentVersion": "0.1.0",
                    "certificateExpiry": "2027-11-21T03:53:00Z",
                },
            },
            {
                "metadata": {"name": "a-cluster-never-seen", "uid": "u-2", "creationTimestamp": "2026-11-21T03:52:55Z"},
                "spec": {"dialect": "guardian"},
                "status": {"conditions": [], "certificateExpiry": "2026-11-20T03:53:00Z"},
            },
        ]})
    }

    #[test]
    fn lists_read_as_kubectl_would_print_them() {
        assert_eq!(
            clusters(&list(), NOW, false).to_string(),
            "\
NAME                   CONNECTED   SESSIONS   AGE
demo                   True        2          3h12m
a-cluster-never-seen   Unknown     0          5s
"
        );
        assert_eq!(
            clusters(&list(), NOW, true).to_string(),
            "\
NAME                   CONNECTED   SESSIONS   AGE     DIALECT    KUBERNETES   AGENT    LABELS            UID
demo                   True        2          3h12m   moorline   v1.33.1      0.1.0    env=x,tier=test   u-1
a-cluster-never-seen   Unknown     0          5s      guardian   <none>       <none>   <none>            u-2
"
        );
    }

    #[test]
    fn status_tells_since_when_and_until_when() {
        assert_eq!(
            status(&list(), NOW, false).to_string(),
            "\
NAME                   CONNECTED   SINCE       SESSIONS   RTT      KUBERNETES   CERTIFICATE
demo                   True        2m15s       2          0.4ms    v1.33.1      365d
a-cluster-never-seen   Unknown     <unknown>   0          <none>   <none>       expired 24h ago
"
        );
        let wide = status(&list(), NOW, true).to_string();
        assert!(wide.contains("10.0.0.1:5,10.0.0.2:6   3,0           9s       ProbeSucceeded\n"), "{wide}");
    }
}

//! One cluster in full, as `kubectl describe` shows an object. Pure.

use moorline_demo::age;
use serde_json::Value;

use super::{UNKNOWN, moment, scalar, sessions, since, text};

/// Where values begin.
const INDENT: usize = 14;

/// The text; `events` is the list of them, none where the gateway keeps none.
pub(in crate::commands) fn description(cluster: &Value, events: Option<&Value>, now: i64) -> String {
    let mut out = field("Name", &text(cluster, "/metadata/name"));
    let labels = cluster.pointer("/metadata/labels").and_then(Value::as_object);
    let mut labels = labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", scalar(Some(value))));
    out.push_str(&field("Labels", &labels.next().unwrap_or_default()));
    labels.for_each(|label| out.push_str(&format!("{:INDENT$}{label}\n", "")));
    let mut put = |name: &str, value: &str| out.push_str(&field(name, value));
    put("UID", &text(cluster, "/metadata/uid"));
    put("Dialect", &dialect(cluster));
    let created = cluster.pointer("/metadata/creationTimestamp");
    put("Created", &format!("{} ({} ago)", scalar(created), since(created, now)));
    put("Kubernetes", &text(cluster, "/status/kubernetesVersion"));
    put("Agent", &text(cluster, "/status/agentVersion"));
    out.push_str(&table(
        "Conditions",
        &["Type", "Status", "Since", "Probed", "Reason", "Message"],
        conditions(cluster, now),
    ));
    out.push_str(&table(
        "Sessions",
        &["ID", "Age", "From", "Agent", "RTT", "Outstanding", "Seen"],
        sessions(cluster).iter().map(|session| session_row(session, now)).collect(),
    ));
    out.push_str(&table("Certificates", &["Fingerprint", "Dialect", "Until", "Left"], certificates(cluster, now)));
    match events.map(list) {
        None => out.push_str(&field("Events", UNKNOWN)),
        Some(events) => {
            let rows = events.iter().map(|event| event_row(event, now)).collect();
            out.push_str(&table("Events", &["Type", "Reason", "Age", "Message"], rows));
        }
    }
    out
}

/// What its agent speaks; and that it is to, where one that speaks otherwise may still stand for it.
fn dialect(cluster: &Value) -> String {
    let wanted = text(cluster, "/spec/dialect");
    let all = cluster.pointer("/status/certificates").map_or(&[][..], list);
    let others = all.iter().filter_map(|one| one.get("dialect")).map(|one| scalar(Some(one)));
    match others.into_iter().find(|other| *other != wanted) {
        Some(other) => format!("{wanted} (migrating from {other})"),
        None => wanted,
    }
}

fn field(name: &str, value: &str) -> String {
    let value = if value.is_empty() { "<none>" } else { value };
    format!("{:INDENT$}{value}\n", format!("{name}:"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn conditions(cluster: &Value, now: i64) -> Vec<Vec<String>> {
    let all = cluster.pointer("/status/conditions").map_or(&[][..], list);
    let row = |one: &Value| {
        let probed = one.get("lastProbeTime").map_or_else(String::new, |probed| since(Some(probed), now));
        let of = |field| scalar(one.get(field));
        vec![of("type"), of("status"), since(one.get("lastTransitionTime"), now), probed, of("reason"), of("message")]
    };
    all.iter().map(row).collect()
}

fn session_row(session: &Value, now: i64) -> Vec<String> {
    let of = |field| scalar(session.get(field));
    let rtt = session.get("rttMs").and_then(Value::as_f64).map_or_else(String::new, |ms| format!("{ms:.1}ms"));
    let (began, seen) = (since(session.get("since"), now), since(session.get("lastSeen"), now));
    vec![of("id"), began, of("remoteAddress"), of("agentVersion"), rtt, of("outstanding"), seen]
}

fn certificates(cluster: &Value, now: i64) -> Vec<Vec<String>> {
    let all = cluster.pointer("/status/certificates").map_or(&[][..], list);
    let row = |one: &Value| {
        let left = match moment(one.get("notAfter")) {
            Some(end) if end <= now => format!("expired {} ago", age::human(now - end)),
            Some(end) => age::human(end - now),
            None => UNKNOWN.to_owned(),
        };
        // A gateway before there were others.
        let dialect = one.get("dialect").map_or_else(|| "moorline".to_owned(), |dialect| scalar(Some(dialect)));
        vec![scalar(one.get("fingerprint")), dialect, scalar(one.get("notAfter")), left]
    };
    all.iter().map(row).collect()
}

/// As kubectl: `5m (x3 over 2h)` for what happened more than once.
fn event_row(event: &Value, now: i64) -> Vec<String> {
    let of = |field| scalar(event.get(field));
    let last = since(event.get("lastTimestamp"), now);
    let count = event.get("count").and_then(Value::as_u64).unwrap_or(1);
    let age =
        if count > 1 { format!("{last} (x{count} over {})", since(event.get("firstTimestamp"), now)) } else { last };
    vec![of("type"), of("reason"), age, of("message")]
}

/// A table under its name, its header underlined.
fn table(name: &str, header: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return field(name, "");
    }
    let header: Vec<String> = header.iter().map(|&word| word.to_owned()).collect();
    let line: Vec<String> = header.iter().map(|word| "-".repeat(word.len())).collect();
    let rows: Vec<_> = [header, line].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut out = format!("{name}:\n");
    for row in &rows {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            let cell = if cell.is_empty() { "<none>" } else { cell };
            text.push_str(&format!("{cell:width$}  ", width = width(column).unwrap_or(0)));
        }
        out.push_str(&format!("  {}\n", text.trim_end()));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 2026-11-21T03:53:00Z.
    const NOW: i64 = 1_795_233_180;

    #[test]
    fn a_cluster_reads_as_kubectl_would_describe_it() {
        let cluster = json!({
            "metadata": {"name": "west", "uid": "u-1", "creationTimestamp": "2026-11-21T00:41:00Z",
                         "labels": {"region": "eu", "tier": "test"}},
            "spec": {"dialect": "moorline"},
            "status": {
                "conditions": [{"type": "ManagedClusterConnected", "status": "True", "reason": "Connected",
                                "message": "fine", "lastTransitionTime": "2026-11-21T03:50:45Z",
                                "lastProbeTime": "2026-11-21T03:52:51Z"}],
                "sessions": [],
                "certificates": [{"fingerprint": "abcd", "notAfter": "2026-11-21T05:53:00Z"}],
                "kubernetesVersion": "v1.35.0",
            },
        });
        let events = json!([
            {"type": "Normal", "reason": "Registered", "message": "it was", "count": 1,
             "firstTimestamp": "2026-11-21T00:41:00Z", "lastTimestamp": "2026-11-21T00:41:00Z"},
            {"type": "Warning", "reason": "Refused", "message": "no", "count": 3,
             "firstTimestamp": "2026-11-21T03:51:00Z", "lastTimestamp": "2026-11-21T03:52:50Z"},
        ]);
        let expected = "\
Name:         west
Labels:       region=eu
              tier=test
UID:          u-1
Dialect:      moorline
Created:      2026-11-21T00:41:00Z (3h12m ago)
Kubernetes:   v1.35.0
Agent:        <none>
Conditions:
  Type                     Status  Since  Probed  Reason     Message
  ----                     ------  -----  ------  ------     -------
  ManagedClusterConnected  True    2m15s  9s      Connected  fine
Sessions:     <none>
Certificates:
  Fingerprint  Dialect   Until                 Left
  -----------  -------   -----                 ----
  abcd         moorline  2026-11-21T05:53:00Z  120m
Events:
  Type     Reason      Age               Message
  ----     ------      ---               -------
  Normal   Registered  3h12m             it was
  Warning  Refused     10s (x3 over 2m)  no
";
        assert_eq!(description(&cluster, Some(&events), NOW), expected);
        let mut migrating = cluster;
        migrating["status"]["certificates"][0]["dialect"] = json!("guardian");
        let text = description(&migrating, None, NOW);
        assert!(text.contains("Dialect:      moorline (migrating from guardian)\n"), "{text}");
        assert!(description(&json!({}), None, NOW).ends_with("Events:       <unknown>\n"));
    }
}

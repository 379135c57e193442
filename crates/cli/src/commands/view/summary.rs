//! What `moorline status` says below its table: the sum, and what somebody should look at. Pure.

use moorline_api::ServerStatus;
use moorline_demo::age;
use serde_json::Value;

use super::{connectedness, items, moment, scalar, sessions, text};

const DAY: i64 = 24 * 3600;

/// So long before its end a certificate is warned about where nobody knows how long it lives. Agents renew at two thirds
/// of its life, so where that is known, the last sixth tells that renewing does not work.
const SOON: i64 = 14 * DAY;

/// The same for Guardian's, which somebody has to replace by a manifest; the gateway's condition has the same time.
const SOON_BY_HAND: i64 = 60 * DAY;

/// The sum of a list of clusters.
pub(in crate::commands) struct Summary {
    /// One line.
    pub(in crate::commands) line: String,
    /// Each a line.
    pub(in crate::commands) warnings: Vec<String>,
    /// Every cluster is connected, and no certificate is about to end.
    pub(in crate::commands) is_well: bool,
}

/// Sums up; `server` is what the gateway says of itself, if it does.
pub(in crate::commands) fn summary(list: &Value, server: Option<&ServerStatus>, now: i64) -> Summary {
    let soon = server.and_then(|server| i64::try_from(server.agent_certificate_life_seconds?).ok());
    let soon = soon.map_or(SOON, |life| life / 6);
    let (mut clusters, mut connected, mut carried) = (0_usize, 0_usize, 0_usize);
    let mut warnings = Vec::new();
    for cluster in items(list) {
        clusters += 1;
        carried += sessions(cluster).len();
        let name = text(cluster, "/metadata/name");
        let condition = connectedness(cluster);
        if condition.is_some_and(|condition| condition["status"] == "True") {
            connected += 1;
        } else if let Some(condition) = condition {
            let (reason, message) = (scalar(condition.get("reason")), scalar(condition.get("message")));
            warnings.push(format!("{name} is not connected: {reason}: {message}"));
        } else {
            warnings.push(format!("{name} is not connected"));
        }
        warnings.extend(about_to_end(cluster, &name, soon, now));
    }
    let plural = |number: usize| if number == 1 { "" } else { "s" };
    let mut line = format!("{clusters} cluster{}, {connected} connected", plural(clusters));
    line.push_str(&format!("; {carried} session{}", plural(carried)));
    if let Some(server) = server {
        let up = age::human(now - server.started.unix_seconds());
        line.push_str(&format!("; gateway {} up for {up}", server.version));
    }
    Summary { line, is_well: warnings.is_empty(), warnings }
}

fn about_to_end(cluster: &Value, name: &str, soon: i64, now: i64) -> Option<String> {
    let end = moment(cluster.pointer("/status/certificateExpiry"))?;
    let by_hand = text(cluster, "/spec/dialect") == "guardian";
    let soon = if by_hand { SOON_BY_HAND } else { soon };
    match end - now {
        left @ ..=0 => Some(format!(
            "the certificate of {name} expired {} ago: its agent is refused; enrol it anew",
            age::human(-left)
        )),
        left if left < soon && by_hand => Some(format!(
            "the certificate of {name} ends in {}: Guardian cannot renew it, see moorline cluster describe {name}",
            age::human(left)
        )),
        left if left < soon => Some(format!(
            "the certificate of {name} ends in {}: its agent has not renewed it, see moorline cluster describe {name}",
            age::human(left)
        )),
        _later => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 2026-11-21T03:53:00Z.
    const NOW: i64 = 1_795_233_180;

    fn cluster(name: &str, status: &str, ends: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "status": {
                "conditions": [{"type": "ManagedClusterConnected", "status": status, "reason": "R", "message": "why"}],
                "sessions": [{}],
                "certificateExpiry": ends,
            },
        })
    }

    fn server(life: Option<u64>) -> ServerStatus {
        ServerStatus {
            version: "0.1.0".to_owned(),
            started: "2026-11-21T02:53:00Z".parse().unwrap(),
            clusters: 2,
            connected_clusters: 1,
            sessions: 2,
            tunnel_address: None,
            agent_certificate_life_seconds: life,
        }
    }

    #[test]
    fn what_needs_a_look_is_told() {
        let list = json!({"items": [
            cluster("east", "True", "2026-12-01T00:00:00Z"),
            cluster("west", "False", "2026-11-21T03:00:00Z"),
        ]});
        let told = summary(&list, Some(&server(None)), NOW);
        assert_eq!(told.line, "2 clusters, 1 connected; 2 sessions; gateway 0.1.0 up for 60m");
        assert_eq!(
            told.warnings,
            [
                "the certificate of east ends in 9d: its agent has not renewed it, see moorline cluster describe east",
                "west is not connected: R: why",
                "the certificate of west expired 53m ago: its agent is refused; enrol it anew",
            ]
        );
        assert!(!told.is_well);
        // A short life is not about to end all the time.
        let list = json!({"items": [cluster("east", "True", "2026-12-01T00:00:00Z")]});
        let told = summary(&list, Some(&server(Some(30 * 24 * 3600))), NOW);
        assert!(told.is_well && told.line.starts_with("1 cluster, 1 connected; 1 session;"), "{}", told.line);
        assert!(!summary(&list, Some(&server(Some(365 * 24 * 3600))), NOW).is_well, "the last sixth of a year");
        assert!(summary(&json!({"items": []}), None, NOW).is_well);
        // However short the lives of our own agents' are.
        let mut guardian = cluster("east", "True", "2026-12-31T00:00:00Z");
        guardian["spec"] = json!({"dialect": "guardian"});
        let told = summary(&json!({"items": [guardian]}), Some(&server(Some(3600))), NOW);
        assert!(told.warnings[0].contains("ends in 39d: Guardian cannot renew it"), "{:?}", told.warnings);
    }
}

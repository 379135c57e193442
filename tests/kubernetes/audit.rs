//! What the kube-apiserver wrote down about a play, and what Moorline did: who did it, as whom, and what it was.

use std::time::Duration;

use moorline_testkit::eventually;
use serde_json::Value;

use crate::stage::Stage;
use crate::tunnel;

/// Until the events of requests that have ended are in Moorline's log, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The requests that kubectl made in the stage's namespace, so far.
pub(crate) fn events(stage: &Stage) -> Vec<Value> {
    let mut events = stage.cluster.plane.audit_events(&stage.namespace).unwrap();
    events.retain(|event| {
        event["objectRef"]["namespace"] == stage.namespace.as_str()
            && event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kubectl"))
    });
    events
}

/// Every request of the play was made by its callers: themselves where nothing is in between, and as impersonated
/// by the agent, with name and groups, where something is.
pub(crate) async fn check(stage: &Stage) {
    let callers = [(&stage.user, Some(&stage.groups)), (&stage.powerless_user, None)];
    let who = if stage.via.is_some() { "impersonatedUser" } else { "user" };
    for event in events(stage) {
        let shown = &event[who];
        let caller = callers.iter().find(|(user, _)| shown["username"] == user.as_str());
        let Some((_, groups)) = caller else { panic!("a stranger in the audit log: {event}") };
        if let Some(groups) = groups {
            assert_eq!(shown["groups"], serde_json::json!(groups), "{event}");
        }
        match &stage.via {
            Some(agent) => assert_eq!(event["user"]["username"], agent.as_str(), "{event}"),
            None => assert!(event["impersonatedUser"].is_null(), "{event}"),
        }
    }
    if let (Some(_agent), Some(house)) = (&stage.via, tunnel::built()) {
        let theirs: Vec<Value> =
            events(stage).into_iter().filter(|event| event["stage"] == "ResponseComplete").collect();
        let log = house.server.directory().join("audit.log");
        let missing = || {
            let ours = std::fs::read_to_string(&log).unwrap();
            // The line at the end may be half written.
            let whole = ours.rsplit_once('\n').map_or("", |(whole, _half)| whole);
            let ours = whole.lines().filter(|line| line.contains(&stage.namespace));
            let ours: Vec<Value> = ours.map(|line| serde_json::from_str(line).unwrap()).collect();
            let missing = theirs.iter().find(|event| !ours.iter().any(|own| is_same(own, event)))?;
            Some(format!("{missing:#} is not in {ours:#?}"))
        };
        // What an upgraded connection came to is written when both its ends have closed.
        let found = eventually(SOON, async || missing().is_none().then_some(())).await;
        assert!(found.is_ok(), "{}", missing().unwrap_or_default());
    }
}

/// Whether both saw the same request in the same way. What a created object is called stands in its body, which only
/// the kube-apiserver reads.
fn is_same(own: &Value, event: &Value) -> bool {
    let uri = own["requestURI"].as_str().unwrap_or_default();
    let inner = uri.strip_prefix("/clusters/").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(uri);
    let (object, seen) = (&own["objectRef"], &event["objectRef"]);
    let there = &own["annotations"]["moorline.io/cluster-audit-id"];
    let fields = ["resource", "namespace", "apiGroup", "apiVersion", "subresource"];
    own["stage"] == "ResponseComplete"
        && event["requestURI"] == inner
        // A kube-apiserver does not tell it of connections that it hands on to a node.
        && (there.is_null() || *there == event["auditID"])
        && own["verb"] == event["verb"]
        && own["user"]["username"] == event["impersonatedUser"]["username"]
        && own["userAgent"] == event["userAgent"]
        // Who hangs up before the head of the answer has come never learns how it was answered.
        && (own["responseStatus"]["code"] == event["responseStatus"]["code"]
            || (own["annotations"]["moorline.io/end"] == "hung-up" && own["responseStatus"]["code"].is_null()))
        && fields.iter().all(|field| object[field] == seen[field])
        && (event["verb"] == "create" || object["name"] == seen["name"])
}

//! What the kube-apiserver wrote down about a play: who did it, and as whom.

use serde_json::Value;

use crate::stage::Stage;

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
pub(crate) fn check(stage: &Stage) {
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
}

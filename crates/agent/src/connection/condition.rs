//! A condition in Kubernetes' shape, and when one is news. Pure: the time comes in as an argument.

use moorline_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Seen;
use crate::{
    standing::Reason,
    tunnel::{Outcome, Standing},
};

/// The type of the condition that says whether the management cluster is reached.
pub(super) const AVAILABLE: &str = "Available";

/// The longest message that Kubernetes takes is 32768; nobody reads more than this.
const MAX_MESSAGE: usize = 1024;

/// What is to be said, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) available: bool,
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) generation: i64,
}

/// A condition as it stands in a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    observed_generation: i64,
    #[serde(default)]
    last_transition_time: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl Wanted {
    /// What is to be said now; none while nothing is known yet.
    pub(super) fn of(seen: &Seen, standing: &Standing, unkept: Option<&str>) -> Option<Self> {
        let object = seen.object.as_ref()?;
        let generation = object.generation();
        let said = |available, reason, message: String| {
            let message = message.chars().take(MAX_MESSAGE).collect();
            Some(Self { available, reason, message, generation })
        };
        if let Some(invalid) = &seen.invalid {
            let instead = match &seen.instead {
                Some(address) => format!("; {address}, as it was before, stays in use"),
                None => String::new(),
            };
            return said(false, Reason::InvalidConfiguration, format!("{invalid}{instead}"));
        }
        // What is told of an earlier way says nothing about this one.
        let Outcome { reason, text, remedy } = standing.outcome.as_ref().filter(|_| standing.route >= seen.route)?;
        if *reason == Reason::Connected {
            let unkept = unkept.map(|why| format!("; a renewed certificate could not be kept: {why}"));
            return said(true, *reason, format!("connected to {}{}", standing.server, unkept.unwrap_or_default()));
        }
        let remedy = if remedy.is_empty() { String::new() } else { format!(". Remedy: {remedy}") };
        let earlier = if standing.earlier_serves { ". The session with the address before still serves" } else { "" };
        said(false, *reason, format!("{text}{remedy}{earlier}"))
    }

    /// Whether a status says it already.
    pub(super) fn stands_in(&self, conditions: &[Value]) -> bool {
        find(conditions).is_some_and(|there| {
            there.status == self.status()
                && there.reason == self.reason.as_str()
                && there.message == self.message
                && there.observed_generation == self.generation
        })
    }

    /// Whether a status differs from it in the message at most, which alone is no reason for haste.
    pub(super) fn differs_in_words_only(&self, conditions: &[Value]) -> bool {
        find(conditions).is_some_and(|there| {
            there.status == self.status()
                && there.reason == self.reason.as_str()
                && there.observed_generation == self.generation
        })
    }

    /// The conditions with this one among them. Its time moves only when the status does.
    pub(super) fn among(&self, conditions: &[Value], now: Timestamp) -> Vec<Value> {
        let before = find(conditions).filter(|there| there.status == self.status());
        let since = before.map(|there| there.last_transition_time).filter(|time| !time.is_empty());
        let condition = Condition {
            kind: AVAILABLE.to_owned(),
            status: self.status().to_owned(),
            observed_generation: self.generation,
            last_transition_time: since.unwrap_or_else(|| now.to_string()),
            reason: self.reason.as_str().to_owned(),
            message: self.message.clone(),
        };
        let others = conditions.iter().filter(|other| other["type"] != AVAILABLE).cloned();
        // A condition of strings and a number is always a value.
        others.chain(serde_json::to_value(condition)).collect()
    }

    fn status(&self) -> &'static str {
        if self.available { "True" } else { "False" }
    }
}

fn find(conditions: &[Value]) -> Option<Condition> {
    let there = conditions.iter().find(|condition| condition["type"] == AVAILABLE)?;
    serde_json::from_value(there.clone()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(generation: i64, route: u64) -> Seen {
        let object = json!({ "metadata": { "name": "default", "generation": generation }, "spec": {} });
        Seen { object: Some(serde_json::from_value(object).unwrap()), route, ..Seen::default() }
    }

    fn standing(route: u64, reason: Reason) -> Standing {
        let outcome = Outcome { reason, text: "nobody there".to_owned(), remedy: "start the server" };
        Standing { route, server: "hub:9449".to_owned(), outcome: Some(outcome), earlier_serves: false }
    }

    #[test]
    fn only_what_is_known_of_this_spec_is_said() {
        assert_eq!(Wanted::of(&Seen::default(), &standing(1, Reason::Connected), None), None, "no object");
        assert_eq!(
            Wanted::of(&seen(2, 2), &standing(1, Reason::Connected), None),
            None,
            "connected to the old address"
        );
        assert_eq!(Wanted::of(&seen(1, 1), &Standing::default(), None), None, "still trying");
        let wanted = Wanted::of(&seen(2, 2), &standing(2, Reason::Connected), None).unwrap();
        assert_eq!((wanted.available, wanted.generation, wanted.message.as_str()), (true, 2, "connected to hub:9449"));
        let unkept = Wanted::of(&seen(2, 2), &standing(2, Reason::Connected), Some("no right")).unwrap();
        assert!(unkept.available && unkept.message.ends_with("could not be kept: no right"));
        let mut refused = standing(2, Reason::ConnectionRefused);
        refused.earlier_serves = true;
        let wanted = Wanted::of(&seen(2, 2), &refused, None).unwrap();
        assert_eq!(
            wanted.message,
            "nobody there. Remedy: start the server. The session with the address before still serves"
        );
        let invalid =
            Seen { invalid: Some("no address".to_owned()), instead: Some("hub:9449".parse().unwrap()), ..seen(3, 2) };
        let wanted = Wanted::of(&invalid, &standing(2, Reason::Connected), None).unwrap();
        assert_eq!((wanted.available, wanted.reason), (false, Reason::InvalidConfiguration));
        assert_eq!(wanted.message, "no address; hub:9449, as it was before, stays in use");
    }

    #[test]
    fn the_time_moves_with_the_status_and_others_are_left_alone() {
        let at = Timestamp::from_unix_seconds;
        let refused = Wanted::of(&seen(1, 1), &standing(1, Reason::ConnectionRefused), None).unwrap();
        let timed_out = Wanted::of(&seen(1, 1), &standing(1, Reason::ConnectionTimedOut), None).unwrap();
        let connected = Wanted::of(&seen(1, 1), &standing(1, Reason::Connected), None).unwrap();
        let other = json!({ "type": "Other", "status": "Unknown", "odd": [1] });
        let one = refused.among(std::slice::from_ref(&other), at(100));
        assert_eq!(one[0], other);
        assert_eq!(one[1]["lastTransitionTime"], at(100).to_string());
        assert!(refused.stands_in(&one) && !timed_out.stands_in(&one));
        let two = timed_out.among(&one, at(200));
        assert_eq!((two[1]["lastTransitionTime"].clone(), two.len()), (json!(at(100).to_string()), 2));
        let three = connected.among(&two, at(300));
        assert_eq!(
            (three[1]["lastTransitionTime"].clone(), three[1]["status"].clone()),
            (json!(at(300).to_string()), json!("True"))
        );
        assert!(connected.stands_in(&three));
    }
}

//! Writes the condition when there is something new to say: at a bounded rate, and never because of its own writing.
//!
//! Several replicas may share a resource. One that is connected says so again when another says it is not, since the
//! cluster is available then; one that is not connected says so once and leaves it at that for [`REPEAT`].

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::{Seen, Shared, condition::Wanted, resource::Connection};
use crate::{
    kubernetes::{CallError, Client, Object},
    metrics::Metrics,
    serve::Chain,
    tunnel::Standing,
};

/// The least time between two writes.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// The least time before a write that changes words only.
const WORDS_PAUSE: Duration = Duration::from_secs(30);

/// How long bad news are held back: a session that is replaced at once is no news.
const SETTLE: Duration = Duration::from_secs(1);

/// The pause after a write that failed; doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When bad news are said again though another replica contradicts.
const REPEAT: Duration = Duration::from_secs(300);

/// Writes the condition.
pub(crate) struct Reporter {
    client: Client,
    resource: Object,
    seen: Shared,
    standing: watch::Receiver<Standing>,
    /// Why the identity cannot be kept where it should be.
    unkept: watch::Receiver<Option<String>>,
    metrics: Arc<Metrics>,
    written: Option<(Wanted, Instant)>,
    told: Option<String>,
}

/// What is to be done about the condition.
#[derive(Debug, PartialEq)]
enum Todo {
    /// Nothing, until something changes.
    Nothing,
    /// Something, but not before this moment.
    NotBefore(Instant),
    /// This is to be said.
    Say(Wanted),
}

impl Reporter {
    /// Writes nothing yet.
    pub(crate) fn new(
        client: Client,
        resource: Object,
        seen: Shared,
        (standing, unkept): (watch::Receiver<Standing>, watch::Receiver<Option<String>>),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { client, resource, seen, standing, unkept, metrics, written: None, told: None }
    }

    /// Reports for ever. To be spawned by the caller.
    pub(crate) async fn run(mut self) {
        let mut changes = self.seen.subscribe();
        let (mut pause, mut news_since) = (FIRST_PAUSE, None);
        loop {
            let seen = changes.borrow_and_update().clone();
            let standing = self.standing.borrow_and_update().clone();
            let wanted = Wanted::of(&seen, &standing, self.unkept.borrow_and_update().as_deref());
            let now = Instant::now();
            match todo(&seen, wanted, self.written.as_ref(), &mut news_since, now) {
                Todo::Nothing => self.something_new(&mut changes).await,
                Todo::NotBefore(moment) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(moment) => {}
                        () = self.something_new(&mut changes) => {}
                    }
                }
                Todo::Say(wanted) => match self.say(&seen, &wanted).await {
                    Ok(()) => {
                        (pause, news_since) = (FIRST_PAUSE, None);
                        self.written = Some((wanted, Instant::now()));
                    }
                    Err(error) => {
                        self.trouble(&error);
                        // Whoever was faster is told by the watch, in a moment.
                        tokio::time::sleep(if error.is_conflict() { LEAST_PAUSE } else { pause }).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                },
            }
        }
    }

    async fn something_new(&mut self, changes: &mut watch::Receiver<Seen>) {
        tokio::select! {
            _changed = changes.changed() => {}
            // The tunnel is gone when the process ends.
            changed = self.standing.changed() => if changed.is_err() { std::future::pending().await },
            () = changed_at_all(&mut self.unkept) => {}
        }
    }

    async fn say(&mut self, seen: &Seen, wanted: &Wanted) -> Result<(), CallError> {
        let Some(object) = &seen.object else { return Ok(()) };
        let conditions = wanted.among(&object.status.conditions, crate::config::now());
        let patch = json!({
            "metadata": { "resourceVersion": object.metadata.resource_version },
            "status": { "conditions": conditions },
        });
        let written: Connection = self.client.patch_status(&self.resource, &patch).await?;
        self.metrics.condition_written("ok");
        self.told = None;
        // Not waiting for the watch to tell: until then the object would seem to lack what was just written.
        self.seen.send_if_modified(|seen| {
            if let Some(object) = seen.object.as_mut().filter(|object| object.metadata.uid == written.metadata.uid) {
                object.metadata.resource_version = written.metadata.resource_version;
                object.status = written.status;
            }
            false
        });
        Ok(())
    }

    fn trouble(&mut self, error: &CallError) {
        self.metrics.condition_written(if error.is_conflict() { "conflict" } else { "failed" });
        let text = Chain(error).to_string();
        if !error.is_conflict() && self.told.as_ref() != Some(&text) {
            let remedy = if error.is_forbidden() {
                "give the agent's service account patch on its status"
            } else {
                "nothing to do here if the kube-apiserver comes back"
            };
            tracing::warn!(resource = %self.resource, remedy, "the condition of the connection resource cannot be written: {text}");
            self.told = Some(text);
        }
    }
}

/// Never returns where nothing can change any more.
async fn changed_at_all(unkept: &mut watch::Receiver<Option<String>>) {
    if unkept.changed().await.is_err() {
        std::future::pending().await
    }
}

/// What is to be done now. `news_since` remembers since when there is bad news that was not told.
fn todo(
    seen: &Seen,
    wanted: Option<Wanted>,
    written: Option<&(Wanted, Instant)>,
    news_since: &mut Option<Instant>,
    now: Instant,
) -> Todo {
    let Some(wanted) = wanted else { return Todo::Nothing };
    let conditions = seen.object.as_ref().map_or(&[][..], |object| object.status.conditions.as_slice());
    if wanted.stands_in(conditions) {
        *news_since = None;
        return Todo::Nothing;
    }
    let mut not_before = now;
    if let Some((said, when)) = written {
        not_before = *when + LEAST_PAUSE;
        if wanted.differs_in_words_only(conditions) {
            not_before = *when + WORDS_PAUSE;
        }
        if !wanted.available && *said == wanted {
            not_before = *when + REPEAT;
        }
    }
    if !wanted.available {
        let since = *news_since.get_or_insert(now);
        not_before = not_before.max(since + SETTLE);
    }
    if not_before > now { Todo::NotBefore(not_before) } else { Todo::Say(wanted) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{standing::Reason, tunnel::Outcome};

    fn seen(conditions: &[Value]) -> Seen {
        let object = json!({ "metadata": { "generation": 1 }, "status": { "conditions": conditions } });
        Seen { object: Some(serde_json::from_value(object).unwrap()), route: 1, ..Seen::default() }
    }

    fn standing(reason: Reason, text: &str) -> Standing {
        let outcome = Outcome { reason, text: text.to_owned(), remedy: "" };
        Standing { route: 1, server: "hub:9449".to_owned(), outcome: Some(outcome), earlier_serves: false }
    }

    fn wanted(standing: &Standing) -> Option<Wanted> {
        Wanted::of(&seen(&[]), standing, None)
    }

    #[test]
    fn good_news_at_once_bad_news_settled_and_nothing_twice() {
        let start = Instant::now();
        let mut news = None;
        let good = standing(Reason::Connected, "");
        let Todo::Say(said) = todo(&seen(&[]), wanted(&good), None, &mut news, start) else { panic!("at once") };
        let there = seen(&said.among(&[], crate::config::now()));
        let written = (said, start);
        assert_eq!(todo(&there, wanted(&good), Some(&written), &mut news, start), Todo::Nothing);
        let bad = standing(Reason::ConnectionRefused, "nobody");
        let later = start + Duration::from_secs(5);
        assert_eq!(todo(&there, wanted(&bad), Some(&written), &mut news, later), Todo::NotBefore(later + SETTLE));
        assert_eq!(todo(&there, wanted(&good), Some(&written), &mut news, later), Todo::Nothing, "it came back");
        assert_eq!(
            todo(&there, wanted(&bad), Some(&written), &mut news, later + SETTLE),
            Todo::NotBefore(later + SETTLE * 2)
        );
        let Todo::Say(said) = todo(&there, wanted(&bad), Some(&written), &mut news, later + SETTLE * 2) else {
            panic!("settled")
        };
        assert!(!said.available);
    }

    #[test]
    fn words_alone_wait_and_two_replicas_do_not_quarrel() {
        let start = Instant::now();
        let (good, bad) = (standing(Reason::Connected, ""), standing(Reason::ConnectionRefused, "nobody"));
        let say = |standing: &Standing| Wanted::of(&seen(&[]), standing, None).unwrap();
        let bad_there = seen(&say(&bad).among(&[], crate::config::now()));
        let good_there = seen(&say(&good).among(&[], crate::config::now()));
        let later = start + Duration::from_secs(5);
        let reworded = standing(Reason::ConnectionRefused, "still nobody");
        let written = (say(&bad), start);
        assert_eq!(
            todo(&bad_there, wanted(&reworded), Some(&written), &mut None, later),
            Todo::NotBefore(start + WORDS_PAUSE)
        );
        // The other replica says it is connected: this one has had its say.
        assert_eq!(todo(&good_there, wanted(&bad), Some(&written), &mut None, later), Todo::NotBefore(start + REPEAT));
        // And the connected one contradicts.
        let written = (say(&good), start);
        assert!(matches!(todo(&bad_there, wanted(&good), Some(&written), &mut None, later), Todo::Say(_)));
    }
}

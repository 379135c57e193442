//! Watches: changes as they happen, from the version that the client knows, with bookmarks.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Response};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::{Instant, Interval, Sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{self, Body, Failure},
    kind::Kind,
    negotiate::{self, Form},
    query::Query,
    select::Selector,
    table::{self, Include},
    world::{Change, What, World},
};

/// How long a watch lasts when the client does not say: as long as a kube-apiserver's at least.
const DEFAULT_LIFE: Duration = Duration::from_secs(30 * 60);
/// The longest life a client may ask for; beyond it clients resume, as they must be able to anyway.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// What all watches need of the demo.
#[derive(Clone, Debug)]
pub(crate) struct Watches {
    pub(crate) world: Arc<World>,
    pub(crate) bookmarks_every: Duration,
    pub(crate) stop: CancellationToken,
}

/// Answers with a stream of events that ends at its time, when the demo stops, or when the client goes.
pub(crate) fn watch(
    watches: &Watches,
    (kind, namespace): (Kind, Option<&str>),
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, Failure> {
    let life = query.number("timeoutSeconds").map_err(Failure::bad_request)?;
    let life = life.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs(seconds).min(LONGEST_LIFE));
    let asked = query.number("resourceVersion").map_err(|error| Failure::bad_request(format!("invalid {error}")))?;
    let mut watching = Watching {
        world: Arc::clone(&watches.world),
        kind,
        namespace: namespace.map(str::to_owned),
        selector: Selector::parse(query)?,
        form: negotiate::form(headers)?,
        include: Include::parse(query)?,
        pending: VecDeque::new(),
        at: 0,
        ended: false,
        bookmarks: query
            .flag("allowWatchBookmarks")
            .then(|| tokio::time::interval_at(Instant::now() + watches.bookmarks_every, watches.bookmarks_every)),
        end: Box::pin(tokio::time::sleep(life)),
        versions: watches.world.versions(),
        stop: watches.stop.clone(),
    };
    let initial = query.flag("sendInitialEvents");
    match asked {
        Some(version) if version > 0 && !initial => watching.resume(version),
        _from_now => watching.begin(initial && query.flag("allowWatchBookmarks")),
    }
    let events = stream::unfold(watching, async |mut watching| watching.next().await.map(|event| (event, watching)));
    Ok(answer::stream("application/json", events))
}

struct Watching {
    world: Arc<World>,
    kind: Kind,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    include: Include,
    /// Written events; at most what one list or the world's memory holds.
    pending: VecDeque<Bytes>,
    /// Everything up to this version was told.
    at: u64,
    ended: bool,
    bookmarks: Option<Interval>,
    end: Pin<Box<Sleep>>,
    versions: tokio::sync::watch::Receiver<u64>,
    stop: CancellationToken,
}

enum Event {
    Changed,
    Bookmark,
    End,
}

impl Watching {
    /// Begins with everything there is, as events.
    fn begin(&mut self, mark_the_end: bool) {
        let (version, objects) = self.world.list(self.kind, self.namespace.as_deref());
        for object in objects.iter().filter(|object| self.selector.wants(object)) {
            let event = self.event("ADDED", object);
            self.pending.push_back(event);
        }
        self.at = version;
        if mark_the_end {
            self.bookmark(&json!({"k8s.io/initial-events-end": "true"}));
        }
    }

    /// Begins after a version that the client knows.
    fn resume(&mut self, version: u64) {
        self.at = version;
        self.catch_up();
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match self.wait().await {
                Event::Changed => self.catch_up(),
                Event::Bookmark => self.bookmark(&json!({})),
                Event::End => self.ended = true,
            }
        }
    }

    async fn wait(&mut self) -> Event {
        let Self { bookmarks, end, versions, stop, .. } = self;
        let bookmark = async {
            match bookmarks {
                Some(bookmarks) => drop(bookmarks.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::End,
            () = end.as_mut() => Event::End,
            changed = versions.changed() => if changed.is_ok() { Event::Changed } else { Event::End },
            () = bookmark => Event::Bookmark,
        }
    }

    fn catch_up(&mut self) {
        match self.world.since(self.at) {
            Ok((version, changes)) => {
                let events: Vec<_> = changes.iter().filter_map(|change| self.tell(change)).collect();
                self.pending.extend(events);
                self.at = version;
            }
            Err(forgotten) => {
                let status = Failure::expired(self.at, forgotten.oldest).to_status();
                self.pending.push_back(line(&json!({"type": "ERROR", "object": status})));
                self.ended = true;
            }
        }
    }

    /// The event of a change for this watch: an object that begins or ceases to match appears or disappears.
    fn tell(&self, change: &Change) -> Option<Bytes> {
        let within = |namespace: &str| change.object["metadata"]["namespace"] == namespace;
        if change.kind != self.kind || !self.namespace.as_deref().is_none_or(within) {
            return None;
        }
        let matches = self.selector.wants(&change.object);
        let matched = change.before.as_ref().map_or(matches, |before| self.selector.wants(before));
        let what = match (change.what, matched, matches) {
            (_, false, false) => return None,
            (What::Added, ..) | (What::Modified, false, true) => "ADDED",
            (What::Modified, true, true) => "MODIFIED",
            (What::Deleted, ..) | (What::Modified, true, false) => "DELETED",
        };
        Some(self.event(what, &change.object))
    }

    fn event(&self, what: &str, object: &Arc<Value>) -> Bytes {
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let shown = match self.form {
            Form::Plain => Value::clone(object),
            Form::Metadata => table::metadata_only(object),
            Form::Table => {
                table::table(self.kind, std::slice::from_ref(object), version, self.include, OffsetDateTime::now_utc())
            }
        };
        line(&json!({"type": what, "object": shown}))
    }

    fn bookmark(&mut self, annotations: &Value) {
        let version = self.at.to_string();
        let metadata = json!({"resourceVersion": version, "annotations": annotations, "creationTimestamp": null});
        let object = match self.form {
            Form::Plain => json!({"kind": self.kind.name(), "apiVersion": "v1", "metadata": metadata}),
            Form::Metadata => table::metadata_only(&json!({ "metadata": metadata })),
            Form::Table => table::table(self.kind, &[], &version, self.include, OffsetDateTime::now_utc()),
        };
        self.pending.push_back(line(&json!({"type": "BOOKMARK", "object": object})));
    }
}

fn line(event: &Value) -> Bytes {
    let mut line = event.to_string();
    line.push('\n');
    Bytes::from(line)
}

//! Pod logs: one line for each second of the pod's life, computed rather than kept, and followed as time goes by.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::Response;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{self, Body, Failure},
    kind::Kind,
    objects::{CONTAINER, parse_timestamp, timestamp},
    query::Query,
    world::World,
};

/// Lines written at once while catching up, so that a long history does not become one large buffer.
const BATCH: u64 = 256;

/// Answers with the lines asked for; with `follow`, until the pod completes, the demo stops or the client goes.
pub(crate) fn logs(
    world: &Arc<World>,
    (namespace, name): (&str, &str),
    query: &Query,
    stop: CancellationToken,
) -> Result<Response<Body>, Failure> {
    let pod =
        world.find(Kind::Pod, namespace, name).ok_or_else(|| Failure::not_found(format!("pods {name:?} not found")))?;
    check_container(&pod, query)?;
    let life = Life::of(&pod).ok_or_else(|| {
        Failure::bad_request(format!("container {CONTAINER:?} in pod {name:?} is waiting to start: ContainerCreating"))
    })?;
    let wanted = Wanted::parse(query, &life)?;
    let logging = Logging {
        world: Arc::clone(world),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        next: wanted.first,
        wanted,
        life,
        stop,
    };
    let lines = stream::unfold(logging, async |mut logging| logging.next().await.map(|lines| (lines, logging)));
    Ok(answer::stream("text/plain", lines))
}

fn check_container(pod: &Value, query: &Query) -> Result<(), Failure> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(container) = query.first("container").filter(|container| *container != CONTAINER) {
        return Err(Failure::bad_request(format!("container {container} is not valid for pod {name}")));
    }
    if query.flag("previous") {
        return Err(Failure::bad_request(format!(
            "previous terminated container {CONTAINER:?} in pod {name:?} not found"
        )));
    }
    Ok(())
}

/// When the lines of a pod begin and end.
struct Life {
    begin: OffsetDateTime,
    end: Option<OffsetDateTime>,
}

impl Life {
    fn of(pod: &Value) -> Option<Self> {
        let state = &pod["status"]["containerStatuses"][0]["state"];
        if state["waiting"].is_object() {
            return None;
        }
        let begin = parse_timestamp(&pod["metadata"]["creationTimestamp"])?;
        Some(Self { begin, end: parse_timestamp(&state["terminated"]["finishedAt"]) })
    }

    /// How many lines there are at a moment.
    fn lines(&self, now: OffsetDateTime) -> u64 {
        let until = self.end.map_or(now, |end| end.min(now));
        u64::try_from((until - self.begin).whole_seconds()).map_or(0, |seconds| seconds + 1)
    }

    fn time_of(&self, line: u64) -> OffsetDateTime {
        self.begin + Duration::from_secs(line)
    }
}

struct Wanted {
    first: u64,
    follow: bool,
    timestamps: bool,
    /// Bytes still to be written, when limited.
    bytes_left: Option<u64>,
}

impl Wanted {
    fn parse(query: &Query, life: &Life) -> Result<Self, Failure> {
        let now = OffsetDateTime::now_utc();
        let number = |name| query.number(name).map_err(Failure::bad_request);
        let mut first = number("tailLines")?.map_or(0, |tail| life.lines(now).saturating_sub(tail));
        let mut since =
            number("sinceSeconds")?.map(|seconds| now - Duration::from_secs(seconds.min(u64::from(u32::MAX))));
        if let Some(text) = query.first("sinceTime") {
            let time = parse_timestamp(&Value::from(text))
                .ok_or_else(|| Failure::bad_request(format!("sinceTime: {text:?} is not an RFC 3339 time")))?;
            since = Some(time);
        }
        if let Some(since) = since {
            let skipped = u64::try_from((since - life.begin).whole_seconds()).unwrap_or(0);
            first = first.max(skipped);
        }
        Ok(Self {
            first,
            follow: query.flag("follow"),
            timestamps: query.flag("timestamps"),
            bytes_left: number("limitBytes")?,
        })
    }
}

struct Logging {
    world: Arc<World>,
    namespace: String,
    name: String,
    next: u64,
    wanted: Wanted,
    life: Life,
    stop: CancellationToken,
}

impl Logging {
    async fn next(&mut self) -> Option<Bytes> {
        if self.wanted.bytes_left == Some(0) {
            return None;
        }
        loop {
            let there = self.life.lines(OffsetDateTime::now_utc());
            if self.next < there {
                return Some(self.write(there.min(self.next + BATCH)));
            }
            if !self.wanted.follow || self.life.end.is_some() || !self.wait().await {
                return None;
            }
        }
    }

    fn write(&mut self, until: u64) -> Bytes {
        let mut text = String::new();
        for line in self.next..until {
            if self.wanted.timestamps {
                text.push_str(&timestamp(self.life.time_of(line)));
                text.push(' ');
            }
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "tick {line}: a line of the Moorline demo API, not of a real container");
        }
        self.next = until;
        if let Some(left) = &mut self.wanted.bytes_left {
            let limit = usize::try_from(*left).unwrap_or(usize::MAX);
            text.truncate(limit);
            *left = left.saturating_sub(text.len() as u64);
        }
        Bytes::from(text)
    }

    /// Waits for the next line's second. False when there will be none.
    async fn wait(&mut self) -> bool {
        let until = self.life.time_of(self.next) - OffsetDateTime::now_utc();
        let until = Duration::try_from(until).unwrap_or_default();
        let stopped = tokio::select! {
            () = self.stop.cancelled() => true,
            () = tokio::time::sleep(until) => false,
        };
        if stopped {
            return false;
        }
        match self.world.find(Kind::Pod, &self.namespace, &self.name).as_deref().and_then(Life::of) {
            Some(life) => self.life = life,
            None => self.life.end = Some(OffsetDateTime::now_utc()),
        }
        true
    }
}

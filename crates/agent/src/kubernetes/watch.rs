//! A watch of one object: events as they come, one JSON document a line.
//!
//! Made by [`super::Client::watch`], read by `connection`. Bookmarks move the version on, so that a watch that ends can
//! mostly begin again where it was. The kube-apiserver ends it after [`SPAN`]; one that does not is given up.

use std::{marker::PhantomData, time::Duration};

use bytes::{Buf as _, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::Instant;

use super::{CallError, MAX_ANSWER, Metadata};
use crate::serve::upstream::ResponseBody;

/// After how long the kube-apiserver is asked to end a watch.
pub(super) const SPAN: Duration = Duration::from_secs(240);

/// How much longer than [`SPAN`] a watch may last: beyond that the connection is dead.
const OVERTIME: Duration = Duration::from_secs(30);

/// A list of at most one object, with the version that a watch goes on from.
#[derive(Debug, Deserialize)]
pub(crate) struct Listed<T> {
    pub(crate) metadata: Metadata,
    #[serde(default = "Vec::new")]
    pub(crate) items: Vec<T>,
}

/// What happened to the object.
#[derive(Debug)]
pub(crate) enum Event<T> {
    /// It is there, and so it is.
    Applied(T),
    /// It is gone.
    Deleted,
    /// Nothing; but the watch has come this far.
    Bookmark,
}

/// A running watch.
pub(crate) struct Watch<T> {
    body: ResponseBody,
    buffer: BytesMut,
    /// Up to here the buffer is known to hold no end of a line.
    searched: usize,
    until: Instant,
    kind: PhantomData<fn() -> T>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

impl<T: DeserializeOwned> Watch<T> {
    pub(super) fn new(body: ResponseBody) -> Self {
        let until = Instant::now() + SPAN + OVERTIME;
        Self { body, buffer: BytesMut::new(), searched: 0, until, kind: PhantomData }
    }

    /// The next event with its version; none when the watch has ended in order.
    ///
    /// # Errors
    /// [`CallError::Gone`] when the object must be listed again; any other when the watch broke.
    pub(crate) async fn next(&mut self) -> Result<Option<(Event<T>, String)>, CallError> {
        loop {
            if let Some(end) = self.line_end() {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return read(&line).map(Some);
            }
            if self.buffer.len() > MAX_ANSWER {
                return Err(broken());
            }
            match tokio::time::timeout_at(self.until, self.body.frame()).await {
                Err(_elapsed) => return Err(broken()),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_broken))) => return Err(broken()),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }

    fn line_end(&mut self) -> Option<usize> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let end = fresh.iter().position(|byte| *byte == b'\n').map(|end| self.searched + end);
        self.searched = self.buffer.len();
        end
    }
}

impl<T> std::fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

fn broken() -> CallError {
    CallError::Body("a watch".to_owned())
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Result<(Event<T>, String), CallError> {
    let unreadable = |error| CallError::Unreadable("a watch".to_owned(), error);
    let Line { kind, object } = serde_json::from_slice(line).map_err(unreadable)?;
    if kind == "ERROR" {
        let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Err(CallError::refused(code, "a watch", object.to_string().as_bytes()));
    }
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let event = match kind.as_str() {
        "ADDED" | "MODIFIED" => Event::Applied(serde_json::from_value(object).map_err(unreadable)?),
        "DELETED" => Event::Deleted,
        _bookmark => Event::Bookmark,
    };
    Ok((event, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Thing {
        spec: String,
    }

    #[test]
    fn events_are_read_and_nonsense_is_an_error() {
        let (event, version) =
            read::<Thing>(br#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7"},"spec":"x"}}"#)
                .unwrap();
        assert!(matches!(event, Event::Applied(thing) if thing.spec == "x"));
        assert_eq!(version, "7");
        let bookmark = br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
        assert!(matches!(read::<Thing>(bookmark).unwrap(), (Event::Bookmark, version) if version == "9"));
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert!(matches!(read::<Thing>(gone).unwrap_err(), CallError::Gone));
        let refused = br#"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"broken"}}"#;
        assert!(read::<Thing>(refused).unwrap_err().to_string().ends_with("to a watch: broken"));
        for nonsense in [&b"{}"[..], b"x", br#"{"type":"ADDED","object":{}}"#, b"\xff"] {
            assert!(matches!(read::<Thing>(nonsense).unwrap_err(), CallError::Unreadable(..)));
        }
    }
}

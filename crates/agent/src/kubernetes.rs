//! What the agent asks the kube-apiserver in its own name, and as nobody else: its probes, its connection resource, its
//! identity Secret, what the doctor looks at.
//!
//! Called by `health`, `connection`, `identity` and `doctor`. It uses the connections of `serve::upstream`, and the two
//! kinds of requests on them cannot be taken for each other: what comes from the tunnel is `serve`'s `Impersonated`, what
//! goes as the agent is a [`Call`], which only this module can make, and only from words of its own and checked names.
//! There is no way from a request of the tunnel to either a [`Call`] or this client. All that `serve` holds is a
//! [`Readiness`], which can ask one constant question, for the server that wants to know whether requests get through.

mod call;
mod error;
mod object;
mod watch;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt as _, Limited};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use call::Call;
pub(crate) use error::CallError;
pub(crate) use object::{CONNECTIONS, Metadata, Object, SECRETS};
pub(crate) use watch::{Event, Listed, Watch};

use crate::serve::upstream::{ResponseBody, Upstream};

/// How long one call may take, its answer read. The kube-apiserver is a neighbour.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one probe may take, its answer read.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read, and the largest event of a watch, in bytes: etcd holds no object of more than 1.5 MiB.
const MAX_ANSWER: usize = 2 * 1024 * 1024;

/// The largest refusal that is read, in bytes. Its words stand in logs and conditions.
const MAX_REFUSAL: usize = 16 * 1024;

/// The page by which a kube-apiserver says whether it serves.
pub(crate) const READY: &str = "/readyz";

/// Can ask whether the kube-apiserver is ready.
#[derive(Clone, Debug)]
pub(crate) struct Readiness(Client);

/// Asks as the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    upstream: Arc<Upstream>,
}

impl Client {
    /// Dials nothing yet.
    pub(crate) fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream }
    }

    /// Reads one of the kube-apiserver's own pages.
    ///
    /// # Errors
    /// [`CallError`], also when the page says that something is wrong.
    pub(crate) async fn probe(&self, path: &'static str) -> Result<Bytes, CallError> {
        let asking = async {
            let response = self.send(Call::probe(path)).await?;
            if !response.status().is_success() {
                // Its words may name what nobody else is to know; the reason of a probe is told to the server.
                return Err(CallError::refused(response.status(), path, b""));
            }
            gather(response, path.to_owned()).await
        };
        within(PROBE_TIMEOUT, path, asking).await
    }

    /// What time it is by the kube-apiserver's clock, as HTTP writes it, where it says so.
    ///
    /// # Errors
    /// As [`Client::probe`].
    pub(crate) async fn date(&self, path: &'static str) -> Result<Option<String>, CallError> {
        let asking = async {
            let response = self.send(Call::probe(path)).await?;
            if !response.status().is_success() {
                return Err(CallError::refused(response.status(), path, b""));
            }
            let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
            Ok(date.map(str::to_owned))
        };
        within(PROBE_TIMEOUT, path, asking).await
    }

    /// What may ask whether the kube-apiserver is ready, and nothing else.
    pub(crate) fn readiness(&self) -> Readiness {
        Readiness(self.clone())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn get<T: DeserializeOwned>(&self, object: &Object) -> Result<T, CallError> {
        self.exchange(Call::new(Method::GET, object.path())).await
    }

    /// Makes an object; what comes back of it is not read.
    ///
    /// # Errors
    /// [`CallError`]; a conflict when there is one already.
    pub(crate) async fn create(&self, object: &Object, value: &impl Serialize) -> Result<(), CallError> {
        let call = Call::new(Method::POST, object.collection()).json(value)?;
        self.exchange::<serde::de::IgnoredAny>(call).await.map(drop)
    }

    /// Replaces an object, if it still is the one whose `resourceVersion` the value holds.
    ///
    /// # Errors
    /// [`CallError`]; a conflict when somebody else was faster.
    pub(crate) async fn update<T: Serialize + DeserializeOwned>(
        &self,
        object: &Object,
        value: &T,
    ) -> Result<T, CallError> {
        self.exchange(Call::new(Method::PUT, object.path()).json(value)?).await
    }

    /// Whether [`Client::update`] would go well. Changes nothing.
    ///
    /// # Errors
    /// [`CallError`], as the update would give.
    pub(crate) async fn try_update(&self, object: &Object, value: &impl Serialize) -> Result<(), CallError> {
        let call = Call::new(Method::PUT, format!("{}?dryRun=All", object.path())).json(value)?;
        self.exchange::<serde::de::IgnoredAny>(call).await.map(drop)
    }

    /// Merges a patch into an object's status, by RFC 7386. With a `metadata.resourceVersion` in it, the object must
    /// still be that one.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn patch_status<T: DeserializeOwned>(
        &self,
        object: &Object,
        patch: &impl Serialize,
    ) -> Result<T, CallError> {
        self.exchange(Call::new(Method::PATCH, object.status_path()).merge_patch(patch)?).await
    }

    /// Has something reviewed that is no object, such as a `SelfSubjectAccessReview`.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn review<T: DeserializeOwned>(
        &self,
        path: &'static str,
        review: &impl Serialize,
    ) -> Result<T, CallError> {
        self.exchange(Call::new(Method::POST, path.to_owned()).json(review)?).await
    }

    /// Reads one object by a list of its collection, whose version a watch can begin with: rights on `list` and `watch`
    /// of one name are asked for in this form only.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn list<T: DeserializeOwned>(&self, object: &Object) -> Result<Listed<T>, CallError> {
        self.exchange(Call::new(Method::GET, object.list_path())).await
    }

    /// Watches one object from a version on.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn watch<T: DeserializeOwned>(
        &self,
        object: &Object,
        version: &str,
    ) -> Result<Watch<T>, CallError> {
        let call = Call::new(Method::GET, object.watch_path(version, watch::SPAN));
        let what = call.what();
        let beginning = async { self.accepted(self.send(call).await?, &what).await };
        let response = within(CALL_TIMEOUT, &what, beginning).await?;
        Ok(Watch::new(response.into_body()))
    }

    async fn exchange<T: DeserializeOwned>(&self, call: Call) -> Result<T, CallError> {
        let what = call.what();
        let asking = async { self.read(self.send(call).await?, what.clone()).await };
        let answer = within(CALL_TIMEOUT, &what, asking).await?;
        serde_json::from_slice(&answer).map_err(|error| CallError::Unreadable(what, error))
    }

    async fn send(&self, call: Call) -> Result<Response<ResponseBody>, CallError> {
        Ok(self.upstream.call(call).await?)
    }

    async fn read(&self, response: Response<ResponseBody>, what: String) -> Result<Bytes, CallError> {
        gather(self.accepted(response, &what).await?, what).await
    }

    /// The answer, if it is a success.
    async fn accepted(
        &self,
        response: Response<ResponseBody>,
        what: &str,
    ) -> Result<Response<ResponseBody>, CallError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let words = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let words = words.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(CallError::refused(code, what, &words))
    }
}

impl Readiness {
    /// Asks.
    ///
    /// # Errors
    /// [`CallError`], also when it is not ready.
    pub(crate) async fn ask(&self) -> Result<(), CallError> {
        self.0.probe(READY).await.map(drop)
    }
}

async fn gather(response: Response<ResponseBody>, what: String) -> Result<Bytes, CallError> {
    let gathered = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    gathered.map(http_body_util::Collected::to_bytes).map_err(|_broken| CallError::Body(what))
}

async fn within<T>(
    limit: Duration,
    what: &str,
    asking: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, asking).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(CallError::Timeout(limit, what.to_owned())),
    }
}

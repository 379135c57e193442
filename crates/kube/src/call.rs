//! One question to the kube-apiserver and its answer, within a time and a size.
//!
//! Called by both kinds of reviews; `webhook` borrows the words. Errors never repeat what was sent or answered: a `TokenReview` comes back with the
//! token in it.

use std::{error::Error, sync::Arc};

use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy;
use k8s_openapi::Resource;
use kube::client::Body;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::Connection;

/// Questions of one kind that are under way at once; more wait within their own time. A kube-apiserver answers one in
/// some milliseconds, so this is above ten thousand a second. There is no limit by time, neither here nor in kube-rs
/// (client-go has one of five a second): what would be a burst to the kube-apiserver is held back by the caches, by one
/// question for all who ask the same, and by this.
pub(crate) const MAX_CALLS: usize = 64;

/// Bytes of an answer: an identity has at most half a mebibyte, and a review repeats its question.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// The turns of one kind of questions. Each kind has its own: strangers who send made-up tokens keep nobody who is known
/// from being decided about.
pub(crate) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(MAX_CALLS))
    }
}

/// Why a question has no answer.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("no answer in time")]
    Timeout,
    #[error("the question cannot be written")]
    Question,
    #[error("the kube-apiserver cannot be reached: {0}")]
    Unreachable(String),
    #[error("our own credential cannot be read, or the plugin for it failed")]
    Credential,
    #[error("the kube-apiserver answered {0}")]
    Refused(u16),
    #[error("the answer broke off or is too large")]
    Broken,
    #[error("the answer is no {0}")]
    Garbage(&'static str),
}

impl Connection {
    /// What comes of a look-up within the time for one question. Who waits for somebody else's question has no more of
    /// it, and does not begin anew when that other one gives up.
    pub(crate) async fn in_time<V>(
        &self,
        looking: impl Future<Output = Result<V, Arc<CallError>>>,
    ) -> Result<V, Arc<CallError>> {
        tokio::time::timeout(self.timeout, looking).await.unwrap_or_else(|_elapsed| Err(Arc::new(CallError::Timeout)))
    }

    /// Asks for a review, when it is its turn: what is posted comes back with its `status` filled in.
    pub(crate) async fn review<R>(&self, turns: &Turns, review: &R) -> Result<R, CallError>
    where
        R: Resource + Serialize + DeserializeOwned,
    {
        tokio::time::timeout(self.timeout, self.ask(turns, review)).await.unwrap_or(Err(CallError::Timeout))
    }

    async fn ask<R>(&self, turns: &Turns, review: &R) -> Result<R, CallError>
    where
        R: Resource + Serialize + DeserializeOwned,
    {
        // Closed by nobody: it lives as long as we do.
        let _turn = turns.0.acquire().await.ok();
        let question = serde_json::to_vec(review).ok().ok_or(CallError::Question)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/apis/{}/{}/{}", R::GROUP, R::VERSION, R::URL_PATH_SEGMENT))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Body::from(question))
            .ok()
            .ok_or(CallError::Question)?;
        let response = self.client.send(request).await.map_err(|error| unreachable(&error))?;
        if !response.status().is_success() {
            return Err(CallError::Refused(response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok().ok_or(CallError::Broken)?;
        // The error of the parser would quote what it met.
        serde_json::from_slice(&body.to_bytes()).ok().ok_or(CallError::Garbage(R::KIND))
    }
}

fn unreachable(error: &kube::Error) -> CallError {
    of_network(error).map_or(CallError::Credential, CallError::Unreachable)
}

/// Words for a call that failed. Only errors of the network are quoted: those of credential plugins hold what the
/// plugin printed.
pub(crate) fn of_network(error: &kube::Error) -> Option<String> {
    let mut cause: &dyn Error = error;
    let mut of_network = false;
    while let Some(source) = cause.source() {
        of_network |= source.is::<legacy::Error>();
        cause = source;
    }
    of_network.then(|| cause.to_string())
}

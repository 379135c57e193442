//! Somebody who is told of events: each is posted as JSON to the URL of a kubeconfig, as kube-apiserver's audit webhook is.
//!
//! The server's audit trail is the only caller. A kubeconfig says all that is needed of such an endpoint: where it is, by
//! which authority it is known, and who we are to it.

use std::{path::Path, time::Duration};

use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use kube::{Client, Config, client::Body};
use thiserror::Error;

use crate::{ConnectionError, call::of_network, connection};

/// Bytes of an answer that are read, so that its connection can be used again. Nobody looks at them.
const MAX_ANSWER: usize = 64 * 1024;

/// An endpoint that takes JSON. Clones share its connections.
#[derive(Clone)]
pub struct Webhook {
    client: Client,
    to: Uri,
    timeout: Duration,
}

/// Why something was not taken. Messages hold neither a credential nor what was posted.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PostError {
    /// No answer within the time for it.
    #[error("no answer in time")]
    Timeout,
    /// The network, or TLS.
    #[error("the webhook cannot be reached: {0}")]
    Unreachable(String),
    /// Our own credential.
    #[error("the credential for the webhook cannot be read, or the plugin for it failed")]
    Credential,
    /// It does not want it, by its status code.
    #[error("the webhook answered {0}")]
    Refused(u16),
}

impl Webhook {
    /// The server of a kubeconfig's current context, at exactly the path that is written there. `timeout` is for one
    /// post, from its beginning to the last byte of its answer.
    ///
    /// To be called in a tokio runtime, in which its connections then live.
    ///
    /// # Errors
    /// [`ConnectionError`]; without TLS nobody is told anything.
    pub async fn from_kubeconfig(path: &Path, timeout: Duration) -> Result<Self, ConnectionError> {
        Self::open(&connection::config(path).await?, timeout)
    }

    pub(crate) fn open(config: &Config, timeout: Duration) -> Result<Self, ConnectionError> {
        let client = connection::client(config, timeout, None)?;
        Ok(Self { client, to: config.cluster_url.clone(), timeout })
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// [`PostError`]; it may have been taken all the same, where the answer was lost.
    pub async fn post(&self, json: Vec<u8>) -> Result<(), PostError> {
        tokio::time::timeout(self.timeout, self.send(json)).await.unwrap_or(Err(PostError::Timeout))
    }

    async fn send(&self, json: Vec<u8>) -> Result<(), PostError> {
        let mut request = Request::new(Body::from(json));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.to.clone();
        let json = http::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json.clone());
        request.headers_mut().insert(header::ACCEPT, json);
        let sent = self.client.send(request).await;
        let response =
            sent.map_err(|error| of_network(&error).map_or(PostError::Credential, PostError::Unreachable))?;
        let code = response.status();
        // An answer that is too long costs its connection, nothing else.
        drop(Limited::new(response.into_body(), MAX_ANSWER).collect().await);
        if code.is_success() { Ok(()) } else { Err(PostError::Refused(code.as_u16())) }
    }
}

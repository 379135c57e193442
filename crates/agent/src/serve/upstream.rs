//! The way to the managed cluster's kube-apiserver, and to nothing else: the agent dials no other address.
//!
//! Called by `serve` with requests that were impersonated, and by `kubernetes` with calls of the agent's own; each is a
//! type that only its own module can make. HTTP/1.1 over kept connections. A connection has no task of its own: whoever waits for its answer drives it, which saves a hand-over
//! between tasks for each request, and makes hanging up immediate, since dropping the answer drops the connection.
//!
//! A request is sent once. Only when a kept connection turned out closed before a byte of the request was written is it
//! sent again, on a new connection.

mod body;
mod connect;
mod pool;

use std::{sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{self, MaxSizeReached},
};
use hyper::upgrade::Upgraded;
use moorline_wire::Failure;
use thiserror::Error;
use tokio::time::Instant;

use super::impersonate::Impersonated;
use crate::{credentials::Credentials, kubernetes::Call, metrics::Metrics};

pub(crate) use body::{RequestBody, ResponseBody};
pub(crate) use connect::{ConnectError, Io};
pub(crate) use connect::{Target, Tls};
use pool::{Connection, Pool};

/// How the kube-apiserver is reached.
#[derive(Debug)]
pub(crate) struct Config {
    /// Where it is.
    pub(crate) target: Target,
    /// How long to wait for the head of an answer while no byte of the request moves. Not applied to requests that
    /// rightly answer late: watches, `logs` and `proxy`, unless they ask for an upgrade.
    pub(crate) response_timeout: Duration,
}

/// The kube-apiserver, as the agent uses it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pool: Arc<Pool>,
    host: HeaderValue,
    credentials: Arc<Credentials>,
    response_timeout: Duration,
    metrics: Arc<Metrics>,
}

/// Into so many parts the wait for an answer is cut; in each it is looked whether the upload still moves, so a wait may
/// take one part longer than it should.
const LOOKS: u32 = 8;

/// What the kube-apiserver answered.
pub(crate) enum Answer {
    /// An ordinary answer, or a refusal to upgrade; the body streams.
    Response(Response<ResponseBody>),
    /// `101`: from here on bytes go both ways.
    Switched(Response<()>, Upgraded),
}

/// Why there is no answer of the kube-apiserver.
#[derive(Debug, Error)]
pub(crate) enum UpstreamError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nothing moved for the configured time.
    #[error("the kube-apiserver did not answer within {0:?}")]
    ResponseTimeout(Duration),
    /// It answered 401, which is about the agent: the user is only named to it.
    #[error("the kube-apiserver does not accept the agent's own credential (401)")]
    Credential,
    /// The request has as many headers as can be, and lacks some that it needs.
    #[error("the request has too many headers")]
    TooManyHeaders,
    /// It switched protocols where nobody asked it to.
    #[error("the kube-apiserver switched protocols unasked")]
    UnaskedSwitch,
    /// The connection broke, or the answer is not HTTP.
    #[error("the connection to the kube-apiserver broke before it answered")]
    Broken(#[source] hyper::Error),
}

impl UpstreamError {
    /// What the other end of the tunnel is told.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Connect(error) => error.failure(),
            Self::ResponseTimeout(_) => Failure::UpstreamTimeout,
            Self::Credential => Failure::UpstreamCredential,
            Self::TooManyHeaders => Failure::HeadTooLarge,
            Self::Broken(_) | Self::UnaskedSwitch => Failure::UpstreamBroken,
        }
    }
}

impl Upstream {
    /// Dials nothing yet.
    pub(crate) fn new(config: Config, credentials: Arc<Credentials>, metrics: Arc<Metrics>) -> Self {
        let host = config.target.host_header();
        Self {
            pool: Arc::new(Pool::new(config.target)),
            host,
            credentials,
            response_timeout: config.response_timeout,
            metrics,
        }
    }

    /// Sends a request as its user. An upgrade goes on a connection of its own.
    pub(super) async fn forward(&self, request: Impersonated) -> Result<Answer, UpstreamError> {
        let patience = if request.answers_late() { None } else { Some(self.response_timeout) };
        let (upgrade, proxied) = (request.upgrade(), request.is_proxied());
        let mut request = request.into_request();
        self.address(request.headers_mut()).map_err(|_full| UpstreamError::TooManyHeaders)?;
        let answer = if upgrade { self.switch(request, patience).await? } else { self.send(request, patience).await? };
        match &answer {
            // The user was authenticated long before: it is the agent that is not known here.
            Answer::Response(response) if response.status() == StatusCode::UNAUTHORIZED && !proxied => {
                self.credentials.rejected();
                Err(UpstreamError::Credential)
            }
            Answer::Response(_) | Answer::Switched(..) => Ok(answer),
        }
    }

    /// Writes to whom the request goes, and the agent's own token. Never panics, however many headers there are.
    fn address(&self, headers: &mut HeaderMap) -> Result<(), MaxSizeReached> {
        headers.try_insert(header::HOST, self.host.clone())?;
        if let Some(token) = self.credentials.bearer() {
            headers.try_insert(header::AUTHORIZATION, token)?;
        }
        Ok(())
    }

    /// Sends a request of the agent's own, as the agent itself. The caller sets the deadline.
    pub(crate) async fn call(&self, call: Call) -> Result<Response<ResponseBody>, UpstreamError> {
        let mut request = call.into_request();
        self.address(request.headers_mut()).map_err(|_full| UpstreamError::TooManyHeaders)?;
        let Answer::Response(response) = self.send(request, None).await? else {
            return Err(UpstreamError::UnaskedSwitch);
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            self.credentials.rejected();
        }
        Ok(response)
    }

    /// Closes kept connections that were idle for too long, for ever. To be spawned by the caller.
    pub(crate) fn reap(&self) -> impl Future<Output = ()> + Send + 'static {
        pool::reap(Arc::downgrade(&self.pool))
    }

    async fn send(
        &self,
        mut request: Request<RequestBody>,
        patience: Option<Duration>,
    ) -> Result<Answer, UpstreamError> {
        while let Some(mut kept) = self.pool.kept() {
            match self.exchange(&mut kept, request, patience).await {
                Ok(response) => return Ok(self.answer(response, kept)),
                Err(NotSent::Unsent(unsent)) => request = unsent,
                Err(NotSent::Failed(error)) => return Err(error),
            }
        }
        let mut fresh = self.connect(false).await?;
        match self.exchange(&mut fresh, request, patience).await {
            Ok(response) => Ok(self.answer(response, fresh)),
            Err(NotSent::Unsent(_)) => Err(UpstreamError::Connect(ConnectError::ClosedAtOnce(self.pool.target()))),
            Err(NotSent::Failed(error)) => Err(error),
        }
    }

    async fn switch(&self, request: Request<RequestBody>, patience: Option<Duration>) -> Result<Answer, UpstreamError> {
        let mut connection = self.connect(true).await?;
        let response = match self.exchange(&mut connection, request, patience).await {
            Ok(response) => response,
            Err(NotSent::Unsent(_)) => {
                return Err(UpstreamError::Connect(ConnectError::ClosedAtOnce(self.pool.target())));
            }
            Err(NotSent::Failed(error)) => return Err(error),
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Answer::Response(response.map(|body| ResponseBody::once(body, connection))));
        }
        let (parts, body) = response.into_parts();
        connection.finish().await.map_err(UpstreamError::Broken)?;
        let mut switched = Response::from_parts(parts, ());
        let upgraded = hyper::upgrade::on(&mut switched).await.map_err(UpstreamError::Broken)?;
        drop(body);
        Ok(Answer::Switched(switched, upgraded))
    }

    fn answer(&self, response: Response<hyper::body::Incoming>, connection: Connection) -> Answer {
        // Asked for no upgrade, so a 101 is nonsense that must not leave its connection in the pool.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Answer::Response(response.map(|body| ResponseBody::once(body, connection)));
        }
        Answer::Response(response.map(|body| ResponseBody::kept(body, connection, &self.pool)))
    }

    async fn connect(&self, upgrade: bool) -> Result<Connection, ConnectError> {
        let began = Instant::now();
        let connected = self.pool.connect(upgrade).await;
        self.metrics.upstream_connected(&connected, began.elapsed());
        connected
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        request: Request<RequestBody>,
        patience: Option<Duration>,
    ) -> Result<Response<hyper::body::Incoming>, NotSent> {
        let upload = request.body().upload();
        let sending = connection.send(request);
        let Some(patience) = patience else { return sending.await.map_err(NotSent::from) };
        let mut sending = std::pin::pin!(sending);
        let (mut moved, mut still) = (0, 0);
        while still < LOOKS {
            if let Ok(sent) = tokio::time::timeout(patience / LOOKS, &mut sending).await {
                return sent.map_err(NotSent::from);
            }
            // A long upload is no silence: only a span in which nothing moved is.
            let now = upload.moved();
            still = if now == moved { still + 1 } else { 0 };
            moved = now;
        }
        Err(NotSent::Failed(UpstreamError::ResponseTimeout(patience)))
    }
}

/// Why an exchange brought no answer.
enum NotSent {
    /// Not a byte was written: may be sent on another connection.
    Unsent(Request<RequestBody>),
    /// It may have been received: must not be sent again.
    Failed(UpstreamError),
}

impl From<hyper::client::conn::TrySendError<Request<RequestBody>>> for NotSent {
    fn from(mut error: hyper::client::conn::TrySendError<Request<RequestBody>>) -> Self {
        match error.take_message() {
            Some(unsent) => Self::Unsent(unsent),
            None => Self::Failed(UpstreamError::Broken(error.into_error())),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use moorline_process::Registry;

    use super::*;
    use crate::credentials::TokenSource;

    #[test]
    fn a_full_head_is_an_error_and_no_panic() {
        let metrics = Arc::new(Metrics::new(&Registry::new("test", "0")));
        let token = TokenSource::Fixed(HeaderValue::from_static("Bearer t"));
        let credentials = Arc::new(Credentials::new(token, Arc::clone(&metrics)).unwrap());
        let target = Target { host: "127.0.0.1".to_owned(), port: 1, tls: None };
        let upstream = Upstream::new(Config { target, response_timeout: Duration::from_secs(5) }, credentials, metrics);
        let mut headers = HeaderMap::new();
        upstream.address(&mut headers).unwrap();
        assert_eq!(headers.len(), 2);
        headers.clear();
        let names = (0..40_000).map(|number| HeaderName::try_from(format!("x-{number}")).unwrap());
        let fit = names.take_while(|name| headers.try_insert(name, HeaderValue::from_static("v")).is_ok()).count();
        assert!(fit < 40_000);
        assert!(upstream.address(&mut headers).is_err());
    }
}

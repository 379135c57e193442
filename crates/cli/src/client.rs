//! The HTTPS client for the gateway: one connection for each request, verified against the named authorities only.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header, response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_model::Status;
use moorline_pki::{certificates_from_pem, private_key_from_pem};
use rustls::{CertificateError, ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{connection::Connection, failure::Failure, kubeconfig::Credential};

/// How long TCP and TLS may take together.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long the answer may take, whole: the management API answers with small objects.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The largest answer taken: a list of ten thousand clusters is smaller.
const LARGEST_ANSWER: usize = 64 << 20;

/// Talks to one gateway.
pub(crate) struct Client {
    connection: Connection,
    tls: TlsConnector,
    server_name: ServerName<'static>,
    bearer: Option<HeaderValue>,
    acting: Vec<(HeaderName, HeaderValue)>,
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) enum CallError {
    /// No answer came.
    Unreachable(Failure),
    /// The gateway says no.
    Refused(StatusCode, String),
    /// The answer makes no sense.
    Unreadable(Failure),
}

impl Client {
    pub(crate) fn new(connection: Connection) -> Result<Self, Failure> {
        let wrong = |what: &str| {
            let what = what.to_owned();
            move |error: rustls::Error| Failure::because(&what, &error)
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates_from_pem(connection.authorities.as_bytes())
            .map_err(|error| Failure::because("the authorities of the gateway", &error))?
        {
            roots.add(authority).map_err(wrong("an authority of the gateway cannot be used"))?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(wrong("TLS cannot be set up"))?
            .with_root_certificates(roots);
        let (mut tls, bearer) = match &connection.credential {
            Credential::Token(token) => {
                let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|error| Failure::because("the token cannot be sent", &error))?;
                bearer.set_sensitive(true);
                (tls.with_no_client_auth(), Some(bearer))
            }
            Credential::Certificate(certificate, key) => {
                let chain = certificates_from_pem(certificate.as_bytes())
                    .map_err(|error| Failure::because("your certificate", &error))?;
                let key = private_key_from_pem(key.as_bytes()).map_err(|error| Failure::because("your key", &error))?;
                let tls = tls.with_client_auth_cert(chain, key);
                (tls.map_err(wrong("your certificate and key cannot be used"))?, None)
            }
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server_name = ServerName::try_from(connection.host.clone())
            .map_err(|error| Failure::because(&format!("--server: {:?}", connection.host), &error))?;
        Ok(Self { connection, tls: TlsConnector::from(Arc::new(tls)), server_name, bearer, acting: Vec::new() })
    }

    /// As somebody else, if one is named: with the headers of `kubectl --as`.
    pub(crate) fn acting_as(
        mut self,
        user: Option<&str>,
        groups: &[String],
        uid: Option<&str>,
    ) -> Result<Self, Failure> {
        let Some(user) = user else { return Ok(self) };
        let user = [("--as", "impersonate-user", user)].into_iter();
        let uid = uid.into_iter().map(|uid| ("--as-uid", "impersonate-uid", uid));
        let groups = groups.iter().map(|group| ("--as-group", "impersonate-group", group.as_str()));
        for (flag, name, text) in user.chain(uid).chain(groups) {
            let value = HeaderValue::from_bytes(text.as_bytes()).ok().filter(|_| !text.is_empty());
            let value = value.ok_or_else(|| Failure::bad_input([format!("{flag}: {text:?} is no name")]))?;
            self.acting.push((HeaderName::from_static(name), value));
        }
        Ok(self)
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CallError::Unreadable(Failure::because("cannot write the request", &error)))?;
        self.call(Method::POST, path, Bytes::from(body)).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, CallError> {
        let io = tokio::time::timeout(CONNECT_WITHIN, self.connect())
            .await
            .map_err(|_elapsed| self.unreachable("no answer within 10 seconds"))??;
        let (head, bytes) = tokio::time::timeout(ANSWER_WITHIN, self.exchange(io, method, path, body))
            .await
            .map_err(|_elapsed| self.unreachable("connected, but no whole answer came within 30 seconds"))?
            .map_err(|error| self.unreachable(&error))?;
        let status = head.status;
        if !status.is_success() {
            return Err(CallError::Refused(status, refusal(status, &bytes)));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            CallError::Unreadable(
                Failure::because(&format!("the answer to {path} is not what a gateway says"), &error)
                    .hint("is --server a Moorline gateway, of a version like this program's?"),
            )
        })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, CallError> {
        let address = (self.connection.host.as_str(), self.connection.port);
        let stream = TcpStream::connect(address).await.map_err(|error| self.unreachable(&error.to_string()))?;
        self.secure(stream).await.map_err(CallError::Unreachable)
    }

    /// TLS on a connection that somebody made.
    pub(crate) async fn secure(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
        let secured = self.tls.connect(self.server_name.clone(), stream).await;
        secured.map_err(|error| self.untrusted(&error))
    }

    /// The head of the answer to a `GET`, whatever it says.
    pub(crate) async fn head(&self, path: &str) -> Result<response::Parts, Failure> {
        let asking = async {
            let io = self.connect().await?;
            let answer = self.exchange(io, Method::GET, path, Bytes::new()).await;
            Ok::<_, CallError>(answer.map_err(|error| self.unreachable(&error))?.0)
        };
        let answer = tokio::time::timeout(CONNECT_WITHIN, asking).await;
        Ok(answer.unwrap_or_else(|_elapsed| Err(self.unreachable("no answer within 10 seconds")))?)
    }

    async fn exchange(
        &self,
        io: TlsStream<TcpStream>,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(response::Parts, Bytes), String> {
        let (mut sender, driver) = http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let headers = request.headers_mut();
        let host = HeaderValue::try_from(self.connection.authority()).map_err(|error| error.to_string())?;
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(bearer) = &self.bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        for (name, value) in &self.acting {
            headers.append(name, value.clone());
        }
        let answer = async move {
            let response = sender.send_request(request).await.map_err(|error| crate::failure::chain(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            Ok((head, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        // The driver ends when the sender is gone; how it ends matters only where the answer did not come.
        let (answer, _driven) = tokio::join!(answer, driver);
        answer
    }

    fn unreachable(&self, why: &str) -> CallError {
        let gateway = self.connection.authority();
        CallError::Unreachable(
            Failure::failed(format!("unable to connect to the gateway at https://{gateway}: {why}"))
                .hint("is it running? `moorline quickstart` starts one; --server and --state-dir name another"),
        )
    }
}

impl Client {
    /// A handshake that failed, with what to do about the reasons that users meet.
    fn untrusted(&self, error: &io::Error) -> Failure {
        let gateway = self.connection.authority();
        let failure = Failure::failed(format!("no TLS with the gateway at https://{gateway}: {error}"));
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                failure.hint("its certificate is not signed by what --certificate-authority names: is it that gateway?")
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                failure.hint("what listens there does not speak TLS: is it that port?")
            }
            _other => failure,
        }
    }
}

/// As kubectl words an answer that is a `Status`, or is not.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<Status>(body) {
        Ok(said) if !said.reason.as_str().is_empty() => {
            format!("Error from server ({}): {}", said.reason.as_str(), said.message)
        }
        Ok(said) => format!("Error from server: {}", said.message),
        Err(_not_a_status) => format!("Error from server: HTTP {status}"),
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable(failure) | CallError::Unreadable(failure) => failure,
            CallError::Refused(StatusCode::UNAUTHORIZED, what) => {
                Self::failed(what).hint("the gateway does not know this token or certificate: see --token-file")
            }
            CallError::Refused(_, what) => Self::failed(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_model::Reason;

    use super::*;

    #[test]
    fn refusals_read_as_in_kubectl() {
        let status = Status::failure(404, Reason::NotFound, "managedclusters.moorline.io \"x\" not found");
        assert_eq!(
            refusal(StatusCode::NOT_FOUND, &status.to_json()),
            "Error from server (NotFound): managedclusters.moorline.io \"x\" not found"
        );
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"<html>"), "Error from server: HTTP 502 Bad Gateway");
    }
}

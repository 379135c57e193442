//! A plain client of a kube-apiserver for setting scenes and looking at them, without kubectl.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Where a kube-apiserver is and as whom to call it.
#[derive(Clone)]
pub struct ApiClient {
    pub(super) port: u16,
    pub(super) token: String,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) authority_pem: Arc<str>,
}

/// What came back: the status and the JSON body (null where there was none).
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body, a string where it was not JSON.
    pub body: Value,
}

impl Answer {
    /// The body, or an error with what the server said instead.
    pub fn ok(self) -> Result<Value> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.body);
        Ok(self.body)
    }
}

impl ApiClient {
    pub(super) fn new(port: u16, token: String, authority_pem: &str) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { port, token, tls: Arc::new(tls), authority_pem: authority_pem.into() })
    }

    /// The same server, called with another bearer token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: token.into(), ..self.clone() }
    }

    /// One HTTP/2 connection; it lives in the runtime that opened it.
    pub async fn open(&self) -> Result<ApiSession> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the kube-apiserver ended");
            }
        });
        Ok(ApiSession { client: self.clone(), sender, _driver: Arc::new(driver) })
    }

    /// One request on a connection of its own.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.open().await?.call(method, path, body).await
    }

    /// The object or list at `path`.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await?.ok().with_context(|| format!("GET {path}"))
    }

    /// Creates `object` in the collection at `path`; one that exists already is left as it is.
    pub async fn create(&self, path: &str, object: &Value) -> Result<()> {
        self.open().await?.create(path, object).await
    }
}

/// One connection to a kube-apiserver, for many requests at a time. Clones share it.
#[derive(Clone)]
pub struct ApiSession {
    client: ApiClient,
    sender: http2::SendRequest<Full<Bytes>>,
    _driver: Arc<JoinSet<()>>,
}

impl ApiSession {
    /// One request; `PATCH` is sent as a merge patch.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let content = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("https://localhost:{}{path}", self.client.port))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.client.token))
            .header(header::CONTENT_TYPE, content)
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        let response = self.sender.clone().send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
        };
        Ok(Answer { status, body })
    }

    /// Creates `object` in the collection at `path`; one that exists already is left as it is.
    pub async fn create(&self, path: &str, object: &Value) -> Result<()> {
        let answer = self.call(Method::POST, path, Some(object)).await?;
        if answer.status == StatusCode::CONFLICT {
            return Ok(());
        }
        answer.ok().map(drop).with_context(|| format!("POST {path}"))
    }
}

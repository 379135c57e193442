//! Asks the issuer: HTTPS only, no redirects, one connection for each request, bounded in size and time. Called by
//! `provider`.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_mtls::{HttpsConnector, HttpsTrust, Roots};
use tokio::net::TcpStream;

use crate::{args::IssuerArgs, failure::Failure};

/// From the first packet to the last of one answer.
const WITHIN: Duration = Duration::from_secs(20);

/// Bytes of an answer: tokens of a user in many groups are far smaller.
const LARGEST: usize = 1 << 20;

const FORM: &str = "application/x-www-form-urlencoded";

/// An HTTPS client that believes the authorities of the issuer.
pub(super) struct Http {
    connector: HttpsConnector,
}

impl Http {
    /// Reads the authorities that are named, or those of the system.
    pub(super) fn new(args: &IssuerArgs) -> Result<Self, Failure> {
        const FLAG: &str = "--issuer-certificate-authority";
        let trust = match &args.issuer_certificate_authority {
            Some(path) => {
                let wrong = |what: String| Failure::bad_input([format!("{FLAG}: {}: {what}", path.display())]);
                let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                HttpsTrust::from(Roots::from_pem(&pem).map_err(|error| wrong(error.to_string()))?)
            }
            None => HttpsTrust::system().map_err(|error| Failure::because(FLAG, &error))?,
        };
        Ok(Self { connector: HttpsConnector::new(trust, None, &[]) })
    }

    pub(super) async fn get(&self, url: &Uri) -> Result<(StatusCode, Bytes), String> {
        self.ask(Request::new(Full::default()), url).await
    }

    /// Posts a form. What is in it goes into the body only.
    pub(super) async fn post(&self, url: &Uri, form: &[(&str, &str)]) -> Result<(StatusCode, Bytes), String> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(FORM));
        self.ask(request, url).await
    }

    async fn ask(&self, request: Request<Full<Bytes>>, url: &Uri) -> Result<(StatusCode, Bytes), String> {
        let answer = tokio::time::timeout(WITHIN, self.exchange(request, url)).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err(format!("no answer within {WITHIN:?}")));
        answer.map_err(|why| format!("{url}: {why}"))
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>, url: &Uri) -> Result<(StatusCode, Bytes), String> {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, url.port_u16().unwrap_or(443))).await.map_err(|error| error.to_string())?;
        let tls = self.connector.connect(tcp, host, WITHIN).await.map_err(|error| error.to_string())?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(tls)).await.map_err(|error| error.to_string())?;
        let text = |text: &str| header::HeaderValue::try_from(text).map_err(|error| error.to_string());
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, text(url.authority().map_or("", |authority| authority.as_str()))?);
        headers.insert(header::ACCEPT, text("application/json")?);
        headers.insert(header::USER_AGENT, text(concat!("moorline/", env!("CARGO_PKG_VERSION")))?);
        let answer = async move {
            let response = sender.send_request(request).await.map_err(|error| crate::failure::chain(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        // The driver ends when the sender is gone; how it ends matters only where the answer did not come.
        let (answer, _driven) = tokio::join!(answer, driver);
        answer
    }
}

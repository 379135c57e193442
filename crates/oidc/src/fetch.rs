//! Reads a document from an issuer: HTTPS only, one connection for each, no redirects, bounded in size and time.
//! Called by `issuer`.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_mtls::{ClientStream, HttpsConnector};
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;

/// Bytes of a discovery document or a key set; those of large providers have some 10 KiB.
const MAX_DOCUMENT: usize = 512 * 1024;

/// From the first packet to the last of one document.
const WITHIN: Duration = Duration::from_secs(5);

/// Why a document could not be had.
#[derive(Debug, Error)]
#[error("{url}: {why}")]
pub(crate) struct FetchError {
    url: Uri,
    why: String,
}

/// Gets a document.
///
/// # Errors
/// It is not to be had within five seconds, or is larger than 512 KiB.
pub(crate) async fn get(connector: &HttpsConnector, url: &Uri) -> Result<Bytes, FetchError> {
    let failed = |why: String| FetchError { url: url.clone(), why };
    match tokio::time::timeout(WITHIN, exchange(connector, url)).await {
        Ok(outcome) => outcome.map_err(failed),
        Err(_elapsed) => Err(failed(format!("no answer within {WITHIN:?}"))),
    }
}

async fn exchange(connector: &HttpsConnector, url: &Uri) -> Result<Bytes, String> {
    let stream = connect(connector, url).await?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("moorline/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    };
    // The driver ends when the sender is gone; how it ends matters only where the answer did not come.
    let (answer, _driven) = tokio::join!(answer, driver);
    answer
}

async fn connect(connector: &HttpsConnector, url: &Uri) -> Result<ClientStream<TcpStream>, String> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let tcp = TcpStream::connect((host, url.port_u16().unwrap_or(443))).await.map_err(|error| error.to_string())?;
    connector.connect(tcp, host, WITHIN).await.map_err(|error| error.to_string())
}

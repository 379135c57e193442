//! The one exchange of joining: dialled as the tunnel is, verified by pin, one request over HTTP/1.1.
//!
//! Called by `join`. The request goes out when the handshake is done, and that is done only with the server of the pin.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use moorline_mtls::{HttpsConnector, JoinConnector};
use moorline_wire::{JOIN_ALPN, JOIN_PATH, JoinAnswer, JoinRefused, JoinRequest, MAX_JOIN_ANSWER};

use super::JoinError;
use crate::{
    config::Shown,
    tunnel::{DialError, Proxy, SERVER_NAME, TLS_TIMEOUT, reach},
};

/// From the request to the whole of its answer: more than the server takes for itself.
const ANSWER: Duration = Duration::from_secs(20);

/// Bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// Asks once.
pub(super) async fn ask(
    shown: &Shown,
    proxy: Option<&(Proxy, Option<HttpsConnector>)>,
    asked: &JoinRequest,
) -> Result<JoinAnswer, JoinError> {
    let (host, port) = (shown.address.host.as_str(), shown.address.port);
    let leg = reach(host, port, proxy).await.map_err(|error| JoinError::dial(&error))?;
    let connector = JoinConnector::new(shown.pins.clone(), JOIN_ALPN);
    let connected = connector.connect(leg, SERVER_NAME, TLS_TIMEOUT).await;
    let io = connected.map_err(|error| JoinError::dial(&DialError::Tls(shown.address.to_string(), error)))?;
    let broken = |error: hyper::Error| JoinError::NoAnswer(error.to_string());
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(io)).await.map_err(broken)?;
    let body = serde_json::to_vec(asked).map_err(|error| JoinError::Answer(error.to_string()))?;
    let request = Request::post(JOIN_PATH)
        .header(header::HOST, SERVER_NAME)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("moorline-agent/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| JoinError::Answer(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_JOIN_ANSWER).collect().await;
        Ok::<_, JoinError>((code, body.map_err(|error| JoinError::NoAnswer(error.to_string()))?.to_bytes()))
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    let answered = async {
        tokio::select! {
            answered = &mut exchange => answered,
            // It may have ended with the answer.
            _ended = &mut connection => exchange.await,
        }
    };
    let answered = tokio::time::timeout(ANSWER, answered).await;
    let (code, body) = answered.map_err(|_elapsed| JoinError::NoAnswer(format!("none within {ANSWER:?}")))??;
    read(code, &body)
}

fn read(code: StatusCode, body: &[u8]) -> Result<JoinAnswer, JoinError> {
    if code.is_success() {
        return serde_json::from_slice(body).map_err(|error| JoinError::Answer(error.to_string()));
    }
    match serde_json::from_slice::<JoinRefused>(body) {
        // A stranger's words on somebody's terminal.
        Ok(refused) => {
            Err(JoinError::Refused(JoinRefused { reason: plain(&refused.reason), message: plain(&refused.message) }))
        }
        Err(_other) => Err(JoinError::Answer(format!("it says {code}"))),
    }
}

fn plain(text: &str) -> String {
    text.chars().take(1024).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_in_their_own_words() {
        let body = br#"{"reason":"TokenUsed","message":"it was\u001b[31m used"}"#;
        let Err(JoinError::Refused(refused)) = read(StatusCode::FORBIDDEN, body) else { panic!("no refusal") };
        assert_eq!((refused.reason.as_str(), refused.message.as_str()), ("TokenUsed", "it was [31m used"));
        assert!(matches!(read(StatusCode::BAD_GATEWAY, b"<html>"), Err(JoinError::Answer(_))));
        assert!(matches!(read(StatusCode::OK, b"{}"), Err(JoinError::Answer(_))));
    }
}

//! Reaching the server through an HTTP proxy: which proxy, from the environment, and the `CONNECT` exchange.
//!
//! The choice is made once, by the configuration; the exchange is called by `dial` with a connection to the proxy (TCP,
//! or TLS for an `https://` proxy). Credentials of the proxy are in neither errors nor logs.

use std::{fmt, net::IpAddr};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::{client::proxy::matcher::Matcher, rt::TokioIo};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// The largest answer head accepted from a proxy, in bytes. Real ones are a few hundred.
const MAX_HEAD: usize = 16 * 1024;

/// A proxy that the server is dialled through.
#[derive(Clone)]
pub(crate) struct Proxy {
    /// True for an `https://` proxy: TLS to the proxy first.
    pub(crate) tls: bool,
    /// Name or address of the proxy.
    pub(crate) host: String,
    /// Its port; 80 or 443 when the URL has none.
    pub(crate) port: u16,
    credentials: Option<HeaderValue>,
}

/// The proxy variables as they are, each already chosen between its upper and lower case spelling.
#[derive(Clone, Default)]
pub(crate) struct ProxyVariables {
    /// `HTTPS_PROXY`, else `https_proxy`, else `ALL_PROXY`, else `all_proxy`.
    pub(crate) proxy: String,
    /// `NO_PROXY`, else `no_proxy`.
    pub(crate) no_proxy: String,
}

/// The proxy variable does not name a proxy. The value is not shown: it may hold a password.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum InvalidProxy {
    /// No URL, or a scheme that is none of these.
    #[error("is not a proxy URL that the agent can use; write http://[user:password@]host:port or https://…")]
    Url,
    /// A SOCKS proxy.
    #[error("names a SOCKS proxy; the agent knows http:// and https:// proxies only")]
    Socks,
}

/// Why a proxy did not open a way to the server.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// It answered, but not with success.
    #[error("answered {0}")]
    Refused(StatusCode),
    /// It closed the connection, or did not speak HTTP, or sent too large a head.
    #[error("did not answer the CONNECT request properly")]
    Broken(#[source] hyper::Error),
    /// Bytes came before we had sent any through the tunnel: TLS never begins that way, so somebody else is talking.
    #[error("sent {0} bytes of its own into the tunnel")]
    EarlyBytes(usize),
}

impl Proxy {
    /// Which proxy, if any, is to be used for a server. Same rules as curl: names with their subdomains, addresses, and
    /// networks in `NO_PROXY`. And as Go's programs do, `localhost` and loopback addresses without being asked: they mean
    /// this machine, and to a proxy they would mean the proxy's.
    ///
    /// # Errors
    /// When a proxy is named but cannot be understood: going direct then would be a surprise.
    pub(crate) fn choose(variables: &ProxyVariables, host: &str, port: u16) -> Result<Option<Self>, InvalidProxy> {
        if variables.proxy.trim().is_empty() || is_this_machine(host) {
            return Ok(None);
        }
        // Judged without NO_PROXY, so that a bad URL is told in either case.
        let named = Matcher::builder().https(variables.proxy.trim()).build();
        let anywhere = Uri::from_static("https://example.invalid/");
        let scheme = named.intercept(&anywhere).ok_or(InvalidProxy::Url)?;
        if scheme.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks")) {
            return Err(InvalidProxy::Socks);
        }
        let chosen = Matcher::builder().https(variables.proxy.trim()).no(variables.no_proxy.as_str()).build();
        let Ok(target) = format!("https://{}/", authority(host, port)).parse::<Uri>() else { return Ok(None) };
        let Some(intercept) = chosen.intercept(&target) else { return Ok(None) };
        let tls = intercept.uri().scheme_str() == Some("https");
        let host = intercept.uri().host().ok_or(InvalidProxy::Url)?;
        Ok(Some(Self {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: intercept.uri().port_u16().unwrap_or(if tls { 443 } else { 80 }),
            credentials: intercept.basic_auth().cloned(),
        }))
    }

    /// Asks the proxy at the other end of `io` for a way to the server; gives `io` back once it is open. The caller
    /// sets the deadline.
    pub(crate) async fn connect<IO>(&self, io: IO, host: &str, port: u16) -> Result<IO, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(io))
            .await
            .map_err(ConnectError::Broken)?;
        let request = self.request(host, port);
        let exchange = async {
            let response = sender.send_request(request).await.map_err(ConnectError::Broken)?;
            if !response.status().is_success() {
                return Err(ConnectError::Refused(response.status()));
            }
            hyper::upgrade::on(response).await.map_err(ConnectError::Broken)
        };
        let driver = async { connection.with_upgrades().await.map_err(ConnectError::Broken) };
        let ((), upgraded) = tokio::try_join!(driver, exchange)?;
        match upgraded.downcast::<TokioIo<IO>>() {
            Ok(parts) if parts.read_buf.is_empty() => Ok(parts.io.into_inner()),
            Ok(parts) => Err(ConnectError::EarlyBytes(parts.read_buf.len())),
            Err(_other_type) => unreachable!("the connection was made from this type a few lines above"),
        }
    }

    fn request(&self, host: &str, port: u16) -> Request<Empty<Bytes>> {
        let target = authority(host, port);
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        // Host and port were checked by the configuration.
        *request.uri_mut() = target.parse().unwrap_or_default();
        if let Ok(value) = HeaderValue::try_from(target) {
            request.headers_mut().insert(header::HOST, value);
        }
        if let Some(credentials) = &self.credentials {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credentials.clone());
        }
        request
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self}{})", if self.credentials.is_some() { ", with credentials" } else { "" })
    }
}

impl fmt::Debug for ProxyVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyVariables").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

fn is_this_machine(host: &str) -> bool {
    let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    loopback || host.eq_ignore_ascii_case("localhost")
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests;

//! Where the server is, as it is now: written in a flag, or in a resource that may change while the agent runs.
//!
//! [`Router`] is made by the configuration and turns an address into a [`Route`]; `connection` publishes the one in use;
//! the keepers of the sessions follow it.

use std::{fmt, str::FromStr, sync::Arc};

use moorline_mtls::{Connector, HttpsConnector};
use thiserror::Error;
use tokio::sync::watch;

use super::{
    dial::{Dialer, SERVER_NAME},
    proxy::{InvalidProxy, Proxy, ProxyVariables, authority},
};

/// The port of an address that names none.
pub(crate) const DEFAULT_PORT: u16 = 9449;

/// Host and port of a tunnel server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no address")]
pub(crate) struct InvalidAddress(String);

/// By which authorities the server is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The tunnel's own, for the name that every tunnel server has: any address leads to the right one or nowhere.
    #[default]
    Moorline,
    /// Those of the operating system as well, for the host of the address.
    Public,
}

/// A way to the server, and its number: a higher one is newer.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) number: u64,
    pub(crate) address: Address,
    pub(crate) trust: Trust,
    pub(crate) dialer: Dialer,
}

/// The way that is to be gone now; none while it is not known yet.
pub(crate) type Routes = watch::Receiver<Option<Arc<Route>>>;

/// Knows everything about a way but the address.
#[derive(Debug)]
pub(crate) struct Router {
    connector: Connector,
    /// Believes the operating system's authorities too; or why it cannot.
    public: Result<Connector, String>,
    proxies: ProxyVariables,
    /// For `https://` proxies.
    proxy_connector: Option<HttpsConnector>,
}

/// Why there is no way to an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum RouteError {
    /// The address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// The proxy's variable.
    #[error("HTTPS_PROXY {0}")]
    Proxy(#[from] InvalidProxy),
    /// The authorities.
    #[error("public authorities are asked for: {0}")]
    Public(String),
}

impl Router {
    /// `proxy_connector` is for proxies that are spoken to over TLS.
    pub(crate) fn new(
        connector: Connector,
        public: Result<Connector, String>,
        proxies: ProxyVariables,
        proxy_connector: Option<HttpsConnector>,
    ) -> Self {
        Self { connector, public, proxies, proxy_connector }
    }

    /// The way to an address.
    ///
    /// # Errors
    /// [`RouteError`].
    pub(crate) fn route(&self, number: u64, address: Address, trust: Trust) -> Result<Route, RouteError> {
        let proxy = Proxy::choose(&self.proxies, &address.host, address.port)?;
        let proxy = proxy.map(|proxy| {
            let connector = if proxy.tls { self.proxy_connector.clone() } else { None };
            (proxy, connector)
        });
        let (connector, server_name) = match trust {
            Trust::Moorline => (self.connector.clone(), SERVER_NAME.to_owned()),
            Trust::Public => (self.public.clone().map_err(RouteError::Public)?, address.host.clone()),
        };
        let dialer = Dialer { host: address.host.clone(), port: address.port, proxy, connector, server_name };
        Ok(Route { number, address, trust, dialer })
    }
}

impl Route {
    /// Whether it leads to the same place in the same way.
    pub(crate) fn leads_to(&self, address: &Address, trust: Trust) -> bool {
        self.address == *address && self.trust == trust
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Reads `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        split(text.trim()).ok_or_else(|| InvalidAddress(text.to_owned()))
    }
}

fn split(text: &str) -> Option<Address> {
    let authority: http::uri::Authority = text.parse().ok()?;
    if authority.as_str().contains('@') || (text.matches(':').count() > 1 && !text.starts_with('[')) {
        return None;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let after = authority.as_str().strip_prefix(authority.host())?;
    let port = match after.strip_prefix(':') {
        None => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
    };
    moorline_mtls::client::check_server_name(host).ok()?;
    Some(Address { host: host.to_owned(), port })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

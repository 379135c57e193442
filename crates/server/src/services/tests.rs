//! Programs in a managed cluster, the two entrances, and services on loopback: real TLS, real HTTP, a real multiplexer,
//! with the tunnel in memory.
#![expect(clippy::disallowed_methods, reason = "tests")]

mod named;
mod proxied;
mod rig;
mod sni;

use std::time::Duration;

use moorline_process::Registry;

use super::*;

/// None at all, for nobody.
pub(crate) fn none() -> Services {
    let config = ServicesConfig {
        file: None,
        max_streams: 1,
        max_connections: 1,
        rate: 1,
        dial_timeout: Duration::from_secs(10),
    };
    Services::new(config, Catalog::default(), &Registry::new("test", "0"))
}

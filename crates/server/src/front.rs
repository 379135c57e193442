//! The users' side: the gateway door, and the way of a request through it.
//!
//! The composition root makes a [`Gateway`] and spawns [`Gateway::serve`]. The files below are in order of travel; each
//! step is a type with fields that only its own file can fill, and is consumed by the next:
//!
//! | file | it has | or else |
//! | --- | --- | --- |
//! | `listener`, `doors` | a TLS connection | hung up |
//! | `serve` | a request on it | 503 while draining |
//! | `request` | a cluster, and the path there | 400, 405, 431 |
//! | `authn` | an identity | 401 |
//! | `fairness`, `authz` | a permit | 429, 403 |
//! | `route` | a live session | 404, 503 |
//! | `line`, `pool`, `guardian` | a stream of it | 429, 503 |
//! | `forward`, `clean` | the head of a response | 502, 504 |
//! | `upgrade`, `body` | bytes until the end | a cut that shows |
//! | `vigil` | a right that is still there | the same cut |
//! | `respond` | a `Status` for whatever failed | |

mod account;
pub(crate) mod authn;
pub(crate) mod authz;
pub(crate) mod body;
mod clean;
mod doors;
mod fairness;
mod forward;
pub(crate) mod guardian;
pub(crate) mod line;
mod listener;
pub(crate) mod metrics;
pub(crate) mod pool;
mod request;
mod respond;
mod route;
mod serve;
pub(crate) mod slots;
mod upgrade;
mod vigil;

pub(crate) use forward::within;
pub(crate) use listener::Gateway;
pub(crate) use serve::{Caller, request_id};

#[cfg(test)]
pub(crate) mod tests;

//! Many streams over one byte stream.
//!
//! [`session`] turns any `AsyncRead + AsyncWrite` into a [`Handle`] (opens streams), an [`Incoming`]
//! (accepts the peer's streams) and a [`Driver`] (a future that does all the work and must be polled
//! until it ends). The protocol on the wire is yamux, version 0, as written down by HashiCorp, so that
//! Go programs can be on the other end.
//!
//! The crate knows neither TLS, HTTP, users nor Kubernetes. It spawns nothing, reads no configuration
//! file and touches no socket but the transport that it is given. `LIFECYCLE.md` beside this crate's
//! `src` lists the invariants.
//!
//! ```
//! # async fn demo(io: tokio::io::DuplexStream) -> Result<(), Box<dyn std::error::Error>> {
//! use moorline_mux::{Config, Role};
//! use tokio::io::AsyncWriteExt;
//!
//! let (handle, _incoming, driver) = moorline_mux::session(io, Config::new(Role::Client).build()?);
//! let driving = async { driver.await };
//! let asking = async {
//!     let mut stream = handle.open().await?;
//!     stream.write_all(b"hello").await?;
//!     stream.shutdown().await?;
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! let (_reason, asked) = tokio::join!(driving, asking);
//! asked
//! # }
//! ```

mod budget;
mod cell;
mod close;
mod config;
mod driver;
mod frame;
mod gate;
mod handle;
mod incoming;
mod ledger;
mod lock;
mod pace;
mod ping;
mod places;
mod session;
mod shim;
mod splice;
mod stats;
mod stream;
mod undivided;

pub use budget::MemoryBudget;
pub use close::CloseReason;
pub use config::{Config, ConfigError, Role};
pub use driver::Driver;
pub use handle::{Handle, OpenError};
pub use incoming::Incoming;
pub use pace::{Pace, Paced};
pub use session::session;
pub use splice::{Spliced, Splicing, splice};
pub use stats::Stats;
pub use stream::{Stream, Watch};
pub use undivided::Undivided;

#[cfg(test)]
mod tests;

//! TLS for Moorline: handshakes with a time limit, the verified peer as a type, keys and roots that reload.
//!
//! Called by the server (both doors), the agent (the tunnel, and its kube-apiserver) and the command line. It touches
//! the byte streams that it is handed, the clock, and the files that a [`Reloading`] names. Types of the TLS library
//! stay behind this crate, and so does the choice of its cryptography (aws-lc), which is named in every
//! configuration instead of a process-wide default.
//!
//! There is no session resumption anywhere: a resumed session would skip the check of the client's certificate.

pub mod client;
mod config;
mod error;
mod held_key;
mod key_pair;
mod peer;
mod pinned;
mod reload;
mod roots;
pub mod server;
mod signatures;
mod sniff;
mod stream;

pub use client::{Connector, HttpsConnector, HttpsTrust, InnerConnector, InvalidServerName, JoinConnector};
pub use config::ConfigError;
pub use error::{Fault, HandshakeError, Refusal, explain_io};
pub use key_pair::{KeyPair, KeyPairError};
pub use peer::{PresentedPeer, VerifiedPeer};
pub use reload::{LoadError, Loaded, Reloading, SETTLES, Source};
pub use roots::{Roots, RootsError};
pub use server::{Arrived, Arriving, GatewayAcceptor, TunnelAcceptor};
pub use stream::{ClientStream, ServerStream};

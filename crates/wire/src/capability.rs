//! What an agent can do beyond the version of the protocol, in words of its hello. Who does not say a word is not sent
//! what it stands for.

/// Renews its certificate over a stream of its own, and does so when it is told to.
pub const RENEW: &str = "renew";

/// Believes other authorities when it is told to, and says which it believes.
pub const ROOTS: &str = "roots";

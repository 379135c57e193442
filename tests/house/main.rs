//! The house ring.

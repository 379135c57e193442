//! The interop ring: our multiplexer against HashiCorp's yamux in Go, in both roles, and Guardian's dialect against Go's
//! TLS and HTTP, over loopback.
//!
//! The Go programs in `peer/` and `guardian/` are built once and kept outside the tree, in `MOORLINE_TEST_TOOLS` or else
//! `~/.cache/moorline/tools`. Without Go the tests skip with a line that says so, unless
//! `MOORLINE_REQUIRE_INTEROP=1` is set, as in CI.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod exchange;
mod going;
mod guardian;
mod guardian_doors;
mod guardian_endings;
mod guardian_migration;
mod guardian_requests;
mod guardian_services;
mod house;
mod management;
mod peer;
mod real;

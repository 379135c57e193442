//! Whether the agent can listen where its flags offer services. Whether the server lets this cluster have them, only the
//! server knows, for each connection: it is not asked.

use std::io::ErrorKind;

use moorline_model::Finding;

use crate::{services::Config, socket};

const CHECK: &str = "services";

pub(super) fn examine(config: &Config, findings: &mut Vec<Finding>) {
    if config.locals.is_empty() {
        findings.push(Finding::skipped(CHECK, "none are offered (--service, --http-service)"));
    }
    for local in &config.locals {
        let named = format!("{} ({}) at {}", local.name, local.kind, local.address);
        findings.push(match socket::listen(local.address) {
            Ok(_let_go_at_once) => Finding::ok(CHECK, format!("{named}: the address is free")),
            // Examined beside the agent, as in its own pod, that is how it should be.
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                Finding::ok(CHECK, format!("{named}: the address is taken, by the agent if it runs here"))
            }
            Err(error) => {
                let remedy = "give an address of this machine, and a port that the agent may have (1024 or above)";
                Finding::fail(CHECK, format!("{named}: {error}"), remedy)
            }
        });
    }
}

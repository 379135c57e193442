//! What a quickstart is to be: from flags to addresses, paths and a cluster, every problem told together.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};

use moorline_model::ClusterName;
use moorline_process::logs;

use crate::{args::QuickstartArgs, connection::quickstart_dir, failure::Failure};

const GATEWAY: (&str, u16) = ("--gateway-listen", 9443);
const TUNNEL: (&str, u16) = ("--tunnel-listen", 9449);
const ADMIN: (&str, u16) = ("--admin-listen", 9091);

/// A quickstart as meant.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) state_dir: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) name: ClusterName,
    pub(super) managed: Managed,
    pub(super) gateway: Door,
    pub(super) tunnel: Door,
    pub(super) admin: Door,
    pub(super) log: String,
}

/// The cluster that is managed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Managed {
    /// The embedded demo API.
    Demo,
    /// A real one, by its kubeconfig.
    Real { kubeconfig: PathBuf, context: Option<String> },
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The address that was given.
    Given(SocketAddr),
    /// This port of loopback, or a free one when it is taken.
    Usual(u16),
}

impl Plan {
    pub(super) fn resolve(args: &QuickstartArgs) -> Result<Self, Failure> {
        let mut problems = Vec::new();
        let mut door = |given: &Option<String>, (flag, port): (&str, u16)| match given {
            None => Door::Usual(port),
            Some(text) => text.parse().map(Door::Given).unwrap_or_else(|_not_an_address| {
                problems.push(format!("{flag}: {text:?} is not an address and a port; write 127.0.0.1:{port}"));
                Door::Usual(port)
            }),
        };
        let (gateway, tunnel, admin) =
            (door(&args.gateway_listen, GATEWAY), door(&args.tunnel_listen, TUNNEL), door(&args.admin_listen, ADMIN));
        for (door, (flag, _)) in [(gateway, GATEWAY), (tunnel, TUNNEL), (admin, ADMIN)] {
            problems.extend(door.beyond_loopback(flag));
        }
        let name = name(&args.name).map_err(|problem| problems.push(problem)).ok();
        if let Some(path) = args.kubeconfig.as_ref().filter(|path| !path.is_file()) {
            problems.push(format!("--kubeconfig: there is no file {}", path.display()));
        }
        if let Err(error) = logs::check_filter(&args.log) {
            problems.push(format!("--log: {error}"));
        }
        let state_dir = args.state_dir.clone().or_else(quickstart_dir);
        if state_dir.is_none() {
            problems.push("--state-dir: there is no home directory; name a directory".to_owned());
        }
        match (name, state_dir) {
            (Some(name), Some(state_dir)) if problems.is_empty() => {
                let state_dir = std::path::absolute(&state_dir)
                    .map_err(|error| Failure::because(&format!("--state-dir: {}", state_dir.display()), &error))?;
                Ok(Self {
                    kubeconfig: args.write_kubeconfig.clone().unwrap_or_else(|| state_dir.join("kubeconfig")),
                    state_dir,
                    name,
                    managed: managed(args),
                    gateway,
                    tunnel,
                    admin,
                    log: args.log.clone(),
                })
            }
            _wrong => Err(Failure::bad_input(problems)),
        }
    }
}

impl Door {
    /// The address to listen on, and whether it is another than the usual one.
    pub(super) fn open(self) -> (SocketAddr, Option<u16>) {
        match self {
            Self::Given(address) => (address, None),
            Self::Usual(port) => {
                let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                match TcpListener::bind(usual) {
                    Ok(_free) => (usual, None),
                    Err(_taken) => (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Some(port)),
                }
            }
        }
    }

    /// A quickstart hands out an administrator's token and asks nobody: it stays on this machine.
    fn beyond_loopback(self, flag: &str) -> Option<String> {
        match self {
            Self::Given(address) if !address.ip().is_loopback() => {
                Some(format!("{flag}: {address} is not on loopback; a quickstart is for this machine only"))
            }
            Self::Given(_) | Self::Usual(_) => None,
        }
    }
}

fn name(text: &str) -> Result<ClusterName, String> {
    let name: ClusterName = text.parse().map_err(|error| format!("--name: {text:?}: {error}"))?;
    if name.is_reserved() {
        return Err(format!("--name: {text:?} is reserved for the management cluster itself"));
    }
    Ok(name)
}

fn managed(args: &QuickstartArgs) -> Managed {
    match &args.kubeconfig {
        Some(kubeconfig) => Managed::Real { kubeconfig: kubeconfig.clone(), context: args.context.clone() },
        None => Managed::Demo,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn plan(flags: &[&str]) -> Result<Plan, Failure> {
        let cli = Cli::try_parse_from(["moorline", "quickstart", "--state-dir", "/tmp/x"].iter().chain(flags)).unwrap();
        let Command::Quickstart(args) = cli.command else { panic!("a quickstart was typed") };
        Plan::resolve(&args)
    }

    #[test]
    fn everything_has_a_default() {
        let plan = plan(&[]).unwrap();
        assert_eq!((plan.gateway, plan.tunnel, plan.admin), (Door::Usual(9443), Door::Usual(9449), Door::Usual(9091)));
        assert_eq!(plan.kubeconfig, PathBuf::from("/tmp/x/kubeconfig"));
        assert_eq!((plan.name.as_str(), plan.managed), ("demo", Managed::Demo));
    }

    #[test]
    fn all_problems_are_told_together() {
        let failure = plan(&[
            "--gateway-listen",
            "9443",
            "--tunnel-listen",
            "0.0.0.0:9449",
            "--name",
            "management",
            "--kubeconfig",
            "/nowhere",
            "--log",
            "loud=ly=x",
        ])
        .unwrap_err();
        let flags: Vec<_> = failure.what.iter().filter_map(|what| what.split(':').next()).collect();
        assert_eq!(flags, ["--gateway-listen", "--tunnel-listen", "--name", "--kubeconfig", "--log"]);
    }

    #[test]
    fn a_taken_port_is_replaced_only_where_none_was_given() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(Door::Usual(address.port()).open(), ((Ipv4Addr::LOCALHOST, 0).into(), Some(address.port())));
        assert_eq!(Door::Given(address).open(), (address, None));
    }
}

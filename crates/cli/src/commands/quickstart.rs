//! `moorline quickstart`: server, agent and a demo cluster in this process, ready for kubectl.
//!
//! The agent dials the server's tunnel door over real TCP and mutual TLS, as it would from elsewhere. Everything that
//! must last is in the state directory; everything listens on loopback.

mod enrol;
mod guide;
mod house;
mod plan;
mod reach;

use std::{fs, net::SocketAddr, path::Path};

use moorline_manifest::Node;
use moorline_process::{logs, signals, write_private};
use moorline_server::bootstrap::{ADMIN_USER, StateDir};

use self::{
    enrol::Came,
    guide::Guide,
    house::House,
    plan::{Door, Managed, Plan},
};
use super::{kubeconfig::entry, programs::build_server};
use crate::{
    args::QuickstartArgs,
    client::Client,
    connection::{Connection, GATEWAY_URL, quickstart_dir},
    failure::Failure,
    kubeconfig::{self, Credential, Kept},
    printer::Printer,
};

pub(super) async fn run(args: &QuickstartArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let plan = Plan::resolve(args)?;
    logs::init(logs::Format::Text, &plan.log).map_err(|error| Failure::bad_input([format!("--log: {error}")]))?;
    let terminated = signals::terminated().map_err(|error| Failure::because("cannot wait for signals", &error))?;
    let mut house = House::new();
    let event = {
        let up = async {
            start(&plan, &house, printer).await?;
            Ok::<_, Failure>(())
        };
        tokio::pin!(terminated);
        let started = tokio::select! {
            started = up => Some(started),
            () = terminated.as_mut() => None,
        };
        match started {
            None => Ok(()),
            Some(Err(failure)) => Err(failure),
            Some(Ok(())) => tokio::select! {
                () = terminated => Ok(()),
                failure = house.broken() => Err(failure),
            },
        }
    };
    printer.note("stopping");
    let ended = house.end().await;
    event.and(ended)
}

/// Brings everything up, and tells how far it is.
async fn start(plan: &Plan, house: &House, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let server = server(plan, printer).await?;
    let (gateway, tunnel) = (server.gateway_addr(), server.tunnel_addr());
    house.serve(server);
    printer.line(&format!(
        "server      gateway at https://{gateway}, tunnel at {tunnel}, state in {}",
        plan.state_dir.display()
    ))?;

    let connection = connection(plan, gateway)?;
    let client = Client::new(connection.clone())?;
    let agent_dir = plan.state_dir.join("agents").join(plan.name.as_str());
    let came = match enrol::ensure(&client, &plan.name, &agent_dir).await? {
        Came::New => "registered",
        Came::FromLastStart => "found from the last start",
        Came::Again => "registered anew, since its agent's key was gone",
    };
    printer.line(&format!("cluster     {:?} {came}", plan.name.as_str()))?;

    let demo = match &plan.managed {
        Managed::Demo => Some(house.demo().await?),
        Managed::Real { .. } => None,
    };
    house.tend(house::agent(&agent_dir, tunnel, &plan.managed, demo)?);
    let what = match &plan.managed {
        Managed::Demo => "an embedded demo API, not a real Kubernetes".to_owned(),
        Managed::Real { kubeconfig, .. } => format!("the cluster of {}", kubeconfig.display()),
    };
    printer.line(&format!("agent       dials the tunnel, in front of {what}"))?;
    let (user, took) = reach::whoami(&client, &plan.name, &plan.managed).await?;
    printer.line(&format!("connected   after {} ms; your requests arrive there as {user:?}", took.as_millis()))?;
    write_kubeconfig(plan, connection, printer)
}

async fn server(plan: &Plan, printer: &mut Printer<'_>) -> Result<moorline_server::App, Failure> {
    let mut open = |what: &str, door: Door| {
        let (address, taken) = door.open();
        if let Some(port) = taken {
            printer.note(&format!("port {port} is taken: the {what} gets a free one"));
        }
        Some(address.to_string())
    };
    let raw = moorline_server::RawConfig {
        state_dir: Some(plan.state_dir.clone()),
        gateway_listen: open("gateway", plan.gateway),
        tunnel_listen: open("tunnel", plan.tunnel),
        admin_listen: open("admin door", plan.admin),
        shutdown_notice: Some("0s".to_owned()),
        drain_grace: Some(house::DRAIN.to_owned()),
        ..moorline_server::RawConfig::default()
    };
    build_server(raw).await
}

/// As whom and where the quickstart itself, and its user, talk to the gateway.
fn connection(plan: &Plan, gateway: SocketAddr) -> Result<Connection, Failure> {
    let state = StateDir::new(&plan.state_dir);
    let ca = state.gateway_ca_certificate();
    let authorities =
        fs::read_to_string(&ca).map_err(|error| Failure::because(&format!("cannot read {}", ca.display()), &error))?;
    let token = state.admin_token().map_err(|error| Failure::because("cannot read the tokens", &error))?;
    let token = token.ok_or_else(|| {
        Failure::failed(format!("{} has no token for the user {ADMIN_USER}", state.tokens().display()))
            .hint("put it back, or start anew with another --state-dir")
    })?;
    let url = plan.state_dir.join(GATEWAY_URL);
    write_private(&url, format!("https://{gateway}\n").as_bytes())
        .map_err(|error| Failure::because("cannot write where the gateway is", &error))?;
    Ok(Connection {
        host: gateway.ip().to_string(),
        port: gateway.port(),
        authorities,
        credential: Credential::Token(token),
    })
}

fn write_kubeconfig(plan: &Plan, connection: Connection, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let path = std::path::absolute(&plan.kubeconfig).unwrap_or_else(|_no_directory| plan.kubeconfig.clone());
    let ours = path.starts_with(&plan.state_dir);
    let entry = entry(&plan.name, connection);
    let kept = kubeconfig::update(&path, &entry, ours)?;
    printer.line(&format!("kubeconfig  context {:?} written to {}", entry.name, path.display()))?;
    if let Kept::CommentsIn(backup) = kept {
        printer.note(&format!(
            "comments do not survive in YAML that is written anew: the old file is {}",
            backup.display()
        ));
    }
    let guide = Guide {
        cluster: plan.name.as_str(),
        user: ADMIN_USER,
        managed: &plan.managed,
        kubeconfig: &path,
        state_dir: &plan.state_dir,
        choose_context: !is_current(&path, &entry.name)?,
        is_default_dir: quickstart_dir().is_some_and(|default| default == plan.state_dir),
    };
    printer.line(&guide.text())
}

fn is_current(path: &Path, context: &str) -> Result<bool, Failure> {
    Ok(kubeconfig::read(path)?.at("current-context").and_then(Node::as_text) == Some(context))
}

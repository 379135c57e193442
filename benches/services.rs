//! What the way from a program in a managed cluster to a service of the management cluster costs, through agent, tunnel
//! and server, as ratios to the same requests sent straight to the service.
//!
//! Service, server and agent are processes of their own, on the cores of this one, which holds the programs. `tcp` is a
//! service in mode `PassThrough`, `http` the same in mode `HTTP`, where the server takes the requests apart. Each figure is
//! the median of interleaved rounds. Run it with `cargo bench --package moorline-benches --bench services`.
//!
//! Where `MOORLINE_BENCH_RATHOLE` names the program of rathole, it is a further way in the same rounds. It takes
//! connections only at the end that is dialled, so its tunnel is dialled the other way round than ours.

mod parts;
mod rathole;
mod ways;

use std::net::SocketAddr;

use anyhow::Result;
use moorline_testkit::link::Link;

use parts::{Origin, ServerProcess, Wishes, say};
use rathole::Rathole;
use ways::{FAR, Way, Ways, bulk, compare, compare_all, connections};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// By name; what begins with `http` the agent offers as HTTP.
const SERVICES: [&str; 2] = ["tcp", "http"];

#[tokio::main]
async fn main() -> Result<()> {
    if parts::played_a_part().await? {
        return Ok(());
    }
    let (service, directory) = (Origin::start()?, tempfile::tempdir()?);
    let table = directory.path().join("services.yaml");
    let upstream = service.address;
    let text = format!(
        "apiVersion: moorline.io/v1alpha1\nkind: ManagementServices\nservices:\n\
         - {{name: tcp, clusters: ['*'], upstream: '{upstream}', mode: PassThrough}}\n\
         - {{name: http, clusters: ['*'], upstream: '{upstream}', mode: HTTP}}\n"
    );
    std::fs::write(&table, text)?;
    let server = ServerProcess::start_with(Wishes { services: Some(table), ..Wishes::default() })?;
    near(&server, &service).await?;
    far(&server, &service).await
}

async fn near(server: &ServerProcess, service: &Origin) -> Result<()> {
    let (_agent, addresses) = server.agent_offering(server.tunnel, "near", &service.url(), &SERVICES).await?;
    let relay = Rathole::start(service.address, None).await?;
    compare_all(&ways(service.address, &addresses, relay.as_ref())).await
}

async fn far(server: &ServerProcess, service: &Origin) -> Result<()> {
    let link = Link::to(server.tunnel).await?;
    link.set_round_trip(FAR);
    let (_agent, addresses) = server.agent_offering(link.address(), "far", &service.url(), &SERVICES).await?;
    // Connections over a link of the same kind: what the link lets through. The link itself accepts at once.
    let plain = Link::to(service.address).await?;
    plain.set_round_trip(FAR);
    let relay = Rathole::start(service.address, Some(FAR)).await?;
    let ways = ways(plain.address(), &addresses, relay.as_ref());
    say("at a round trip of 50 ms between agent and server:");
    compare("requests/s, 1 KiB, 16 on new connections", &ways, connections).await?;
    compare("MiB/s, one answer of 256 MiB", &ways, bulk).await
}

fn ways(direct: SocketAddr, addresses: &[SocketAddr], relay: Option<&Rathole>) -> Ways {
    let ours = SERVICES.into_iter().zip(addresses).map(|(name, address)| (name, Way::Plain(*address)));
    [("direct", Way::Plain(direct))].into_iter().chain(ours).chain(relay.map(Rathole::way)).collect()
}

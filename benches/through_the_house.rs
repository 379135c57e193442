//! What the way through server, tunnel and agent costs, as ratios to the same requests sent straight to the origin.
//!
//! Origin, server and agent are processes of their own, on the cores of this one, which holds the callers. The way
//! through pays for three hops of TLS and HTTP, authentication, authorisation and impersonation; the direct way is plain
//! HTTP. Each figure is the median of interleaved rounds. Run it with
//! `cargo bench --package moorline-benches --bench through_the_house`.
//!
//! Where they are there, clusters whose agent is Calico's Guardian, or the stand-in for it, are further ways in the same
//! rounds. So is rathole where `MOORLINE_BENCH_RATHOLE` names its program: a relay of plain TCP connections through TLS,
//! which reads no request. What lies between it and us is what knowing the user costs.

mod guardian;
mod parts;
mod rathole;
mod ways;

use anyhow::Result;
use moorline_testkit::link::Link;

use guardian::Guardian;
use parts::{Origin, ServerProcess};
use rathole::Rathole;
use ways::{FAR, Way, Ways, bulk, compare, compare_all};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    if parts::played_a_part().await? {
        return Ok(());
    }
    let origin = Origin::start()?;
    let server = ServerProcess::start()?;
    near(&server, &origin).await?;
    far(&server, &origin).await
}

async fn near(server: &ServerProcess, origin: &Origin) -> Result<()> {
    let through = |cluster| Ok::<_, anyhow::Error>(Way::Through(server.user()?, cluster));
    let _agent = server.agent("near", &origin.url()).await?;
    let mut ways: Ways = vec![("direct", Way::Plain(origin.address)), ("moorline", through("near")?)];
    let real = Guardian::real(server, origin, "guarded").await?;
    if real.is_some() {
        ways.push(("guardian", through("guarded")?));
    }
    let stand_in = Guardian::stand_in(server, origin, "played").await?;
    if stand_in.is_some() {
        ways.push(("stand-in", through("played")?));
    }
    let relay = Rathole::start(origin.address, None).await?;
    ways.extend(relay.as_ref().map(Rathole::way));
    compare_all(&ways).await
}

async fn far(server: &ServerProcess, origin: &Origin) -> Result<()> {
    let link = Link::to(server.tunnel).await?;
    link.set_round_trip(FAR);
    let _agent = server.agent_at(link.address(), "far", &origin.url()).await?;
    // One TCP connection over a link of the same kind: what the link lets through.
    let plain = Link::to(origin.address).await?;
    plain.set_round_trip(FAR);
    let relay = Rathole::start(origin.address, Some(FAR)).await?;
    let mut ways: Ways =
        vec![("direct", Way::Plain(plain.address())), ("moorline", Way::Through(server.user()?, "far"))];
    ways.extend(relay.as_ref().map(Rathole::way));
    compare("MiB/s, the same at a round trip of 50 ms", &ways, bulk).await
}

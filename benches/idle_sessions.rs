//! What a thousand idle sessions cost the server, a process of its own: memory for each, and processor time.
//!
//! Run it with `cargo bench --package moorline-benches --bench idle_sessions`.

mod parts;

use std::time::Duration;

use anyhow::Result;
use moorline_testkit::client::LIMIT;
use moorline_testkit::eventually;
use moorline_testkit::house::Agent;
use moorline_testkit::upstream::Upstream;

use parts::{ServerProcess, say};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sessions that are counted.
const SESSIONS: u32 = 1000;

/// Sessions before those: with the first ones come allocations that serve all.
const WARM: u32 = 100;

/// Sessions of one agent, each agent being of a cluster of its own.
const EACH: u8 = 4;

/// How long after the last arrival the watch begins.
const SETTLED: Duration = Duration::from_secs(5);

/// How long they are watched idling: several heartbeats of 5 seconds.
const WATCHED: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    if parts::played_a_part().await? {
        return Ok(());
    }
    let (server, upstream) = (ServerProcess::start()?, Upstream::start().await?);
    let mut agents = Vec::new();
    grow(&server, &upstream, &mut agents, WARM).await?;
    let before = server.process.memory("RssAnon:")?;
    grow(&server, &upstream, &mut agents, WARM + SESSIONS).await?;
    // Every cluster's sessions were probed as they arrived; that is not idling.
    tokio::time::sleep(SETTLED).await;
    let used = server.process.processor_time()?;
    tokio::time::sleep(WATCHED).await;
    let used = server.process.processor_time()? - used;
    let each = server.process.memory("RssAnon:")?.saturating_sub(before) as f64 / f64::from(SESSIONS);
    let share = used / WATCHED.as_secs_f64() / f64::from(WARM + SESSIONS) * 1000.0;
    say(&format!("{SESSIONS} idle sessions: {:.1} KiB of the server's memory for each", each / 1024.0));
    say(&format!("processor time of a thousand idle sessions: {:.2} % of a core", share * 100.0));
    Ok(())
}

/// Starts agents until so many sessions are there.
async fn grow(server: &ServerProcess, upstream: &Upstream, agents: &mut Vec<Agent>, sessions: u32) -> Result<()> {
    let wanted = (sessions / u32::from(EACH)) as usize;
    while agents.len() < wanted {
        let created = server.create(&format!("c{}", agents.len())).await?;
        agents.push(Agent::start(&created, server.tunnel, &upstream.url(), |raw| raw.sessions = Some(EACH))?);
    }
    let there =
        async || server.metric("moorline_tunnel_sessions").await.ok().filter(|count| *count >= f64::from(sessions));
    eventually(LIMIT, there).await?;
    Ok(())
}

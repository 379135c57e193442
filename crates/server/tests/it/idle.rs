//! What an idle session costs the server in memory.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use moorline_server::bootstrap::StateDir;
use moorline_testkit::eventually;

use crate::{
    agent::{Agent, Credentials},
    house::LIMIT,
    user::{User, plain_get},
};

/// Enough that what a process allocates once does not count.
const SESSIONS: usize = 300;

/// Spread over so many clusters, as every arrival has the other sessions of its cluster probed.
const CLUSTERS: usize = 10;

/// Sessions that are not counted: with the first ones come allocations that serve all.
const WARM: usize = 50;

/// Bytes for each session.
const MOST: usize = 20 * 1024;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn resident(child: &Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn an_idle_session_costs_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0";
    let mut child = Killed(
        Command::new(env!("CARGO_BIN_EXE_moorline-server"))
            .env_clear()
            .arg("--state-dir")
            .arg(dir.path())
            .args(["--tunnel-listen", any, "--gateway-listen", any, "--admin-listen", any])
            .args(["--max-sessions-per-cluster", "2000", "--heartbeat-interval", "1s"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let serving = lines.find(|line| line.contains("serving")).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    let address = |name: &str| -> SocketAddr {
        let rest = serving.split_once(name).unwrap().1;
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let state = StateDir::new(dir.path());
    let user = User::at(address("gateway="), &state);
    let mut credentials = Vec::new();
    for number in 0..CLUSTERS {
        credentials.push(Credentials::from(&user.create(&format!("c{number}")).await.enrolment));
    }
    let (tunnel, admin) = (address("tunnel="), address("admin="));
    let mut sessions = Vec::new();
    let mut before = 0;
    for (number, credentials) in credentials.iter().cycle().take(WARM + SESSIONS).enumerate() {
        if number == WARM {
            before = resident(&child.0);
        }
        sessions.push(Agent::connect_to(tunnel, credentials).await.live("x"));
    }
    // Several heartbeats on each.
    eventually(LIMIT, async || {
        let metrics = plain_get(admin, "/metrics").await;
        let count = metrics.lines().find_map(|line| line.strip_prefix("moorline_tunnel_heartbeat_seconds_count "));
        (count?.parse::<usize>().ok()? > 4 * (WARM + SESSIONS)).then_some(())
    })
    .await
    .unwrap();
    let each = resident(&child.0).saturating_sub(before) / SESSIONS;
    assert!(each < MOST, "{each} bytes for each idle session");
    assert!(sessions.iter().all(|session| session.handle.is_open()));
}

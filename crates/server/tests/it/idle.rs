//! What an idle session costs the server in memory and in processor time.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use moorline_server::bootstrap::StateDir;
use moorline_testkit::eventually;

use crate::{
    agent::{Agent, Credentials},
    house::LIMIT,
    user::{User, plain_get},
};

/// Enough that what a process allocates once does not count.
const SESSIONS: usize = 600;

/// Spread over so many clusters, as every arrival has the other sessions of its cluster probed.
const CLUSTERS: usize = 10;

/// Sessions that are not counted: with the first ones come allocations that serve all.
const WARM: usize = 200;

/// Quicker than usual, for a test that does not take minutes.
const BEAT: Duration = Duration::from_secs(3);

/// Bytes for each session.
const MOST: usize = 20 * 1024;

/// Processor time that a thousand sessions may take of one core, with heartbeats at their usual interval. Code that is
/// not optimised, on a slow machine that runs other tests as well, gets fifty times that.
const MOST_OF_A_CORE: f64 = if cfg!(debug_assertions) { 1.0 } else { 0.02 };

/// Heartbeats a second on a thousand sessions at the usual interval of 5 s, from the server and from the agents.
const BEATS: f64 = 2.0 * 1000.0 / 5.0;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What it holds, without the pages of its program, which come as they are first used.
fn resident(child: &Child) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Processor time that it has used so far, in seconds.
fn processor_time(child: &Child) -> f64 {
    /// The kernel shows hundredths of a second, whatever its own clock is.
    const TICK: f64 = 0.01;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    // Behind the name, which may hold anything, user and system time are the 12th and 13th.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum::<f64>() * TICK
}

/// Heartbeats answered so far.
async fn beats(admin: SocketAddr) -> f64 {
    let metrics = plain_get(admin, "/metrics").await;
    let count = metrics.lines().find_map(|line| line.strip_prefix("moorline_tunnel_heartbeat_seconds_count "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0.0)
}

#[tokio::test]
async fn f37_an_idle_session_costs_little_memory_and_hardly_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0";
    let mut child = Killed(
        Command::new(env!("CARGO_BIN_EXE_moorline-server"))
            .env_clear()
            // Counted in pages of 2 MiB a few hundred sessions are all noise.
            .env("MIMALLOC_ALLOW_THP", "0")
            .arg("--state-dir")
            .arg(dir.path())
            .args(["--tunnel-listen", any, "--gateway-listen", any, "--admin-listen", any])
            .args(["--max-sessions-per-cluster", "2000", "--heartbeat-interval", &format!("{}s", BEAT.as_secs())])
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
            // The first heartbeat of each allocates as well.
            eventually(LIMIT, async || (beats(admin).await > 2.0 * WARM as f64).then_some(())).await.unwrap();
            before = resident(&child.0);
        }
        sessions.push(Agent::connect_to(tunnel, credentials).await.live("x"));
    }
    let (begun, used) = (beats(admin).await, processor_time(&child.0));
    // Several heartbeats on each.
    let wanted = begun + 4.0 * (WARM + SESSIONS) as f64;
    // Asking costs the server more than the beats do.
    let due = Instant::now() + BEAT * 4;
    eventually(LIMIT, async || (Instant::now() > due && beats(admin).await > wanted).then_some(())).await.unwrap();
    let each_beat = (processor_time(&child.0) - used) / (beats(admin).await - begun);
    let each = resident(&child.0).saturating_sub(before) / SESSIONS;
    println!("{each} bytes for each session, {:.2} % of a core for a thousand", each_beat * BEATS * 100.0);
    assert!(each < MOST, "{each} bytes for each idle session");
    assert!(each_beat * BEATS < MOST_OF_A_CORE, "{:.1} µs for each heartbeat", each_beat * 1e6);
    assert!(sessions.iter().all(|session| session.handle.is_open()));
}

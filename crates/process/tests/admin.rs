//! The admin door over a real socket: probes, metrics, and callers that misbehave.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, time::Duration};

use moorline_process::{
    Phase, Plan, Readiness, Registry, Shutdown, Tasks,
    admin::{self, Admin},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

struct Door {
    address: SocketAddr,
    readiness: Readiness,
    shutdown: Shutdown,
    tasks: Tasks,
}

async fn door() -> Door {
    let registry = Registry::new("moorline-test", "1.2.3");
    let (readiness, shutdown, tasks) = (Readiness::new(), Shutdown::new(), Tasks::new(&registry));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = Admin { registry, readiness: readiness.clone(), phases: shutdown.phases(), tasks: tasks.clone() };
    tasks.spawn("admin", admin::serve(listener, admin));
    Door { address, readiness, shutdown, tasks }
}

async fn ask(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn probes_tell_what_is_wrong() {
    let door = door().await;
    let tunnel = door.readiness.check("tunnel");
    assert!(ask(door.address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    let answer = ask(door.address, "GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("[-]tunnel failed: starting\n"), "{answer}");
    tunnel.ready();
    let answer = ask(door.address, "GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    let answer = ask(door.address, "GET /readyz?verbose").await;
    assert!(answer.ends_with("[+]shutdown ok\n[+]tunnel ok\nreadyz check passed\n"), "{answer}");
}

#[tokio::test]
async fn metrics_are_there_and_nothing_else_is() {
    let door = door().await;
    let answer = ask(door.address, "GET /metrics").await;
    assert!(answer.contains("moorline_build_info{program=\"moorline-test\",version=\"1.2.3\"} 1\n"), "{answer}");
    assert!(answer.to_lowercase().contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(ask(door.address, "GET /").await.starts_with("HTTP/1.1 404"));
    assert!(ask(door.address, "GET /readyz/../metrics").await.starts_with("HTTP/1.1 404"));
    let answer = ask(door.address, "POST /livez").await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("GET, HEAD"), "{answer}");
    let answer = ask(door.address, "HEAD /livez").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn stalled_callers_are_few_and_the_door_closes_with_the_process() {
    let door = door().await;
    let mut stalled = Vec::new();
    for _caller in 0..2 * admin::MAX_CONNECTIONS {
        stalled.push(TcpStream::connect(door.address).await.unwrap());
    }
    assert!(ask(door.address, "GET /livez").await.starts_with("HTTP/1.1 200"), "a probe is answered all the same");
    let count = |(name, count)| (name == "admin-connection").then_some(count);
    let connections = || door.tasks.by_name().into_iter().find_map(count).unwrap_or_default();
    while connections() > admin::MAX_CONNECTIONS as u64 {
        tokio::task::yield_now().await;
    }
    stalled.clear();

    let mut idle = TcpStream::connect(door.address).await.unwrap();
    let plan = Plan {
        notice: Duration::ZERO,
        go_away: Duration::ZERO,
        drain: Duration::ZERO,
        cancel: Duration::from_secs(10),
    };
    let outcome = door.shutdown.run(plan, &door.tasks, std::future::pending()).await;
    assert_eq!(outcome.unfinished, None);
    let heard = idle.read(&mut [0; 1]).await;
    assert!(matches!(heard, Ok(0) | Err(_)), "{heard:?}");
    TcpStream::connect(door.address).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut_off() {
    let door = door().await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
    let began = tokio::time::Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(began.elapsed() >= admin::HEADER_TIMEOUT);
}

#[tokio::test]
async fn not_ready_shows_before_anything_stops() {
    let door = door().await;
    let plan = Plan { notice: Duration::from_secs(60), ..Plan::default() };
    let (hurry, hurried) = tokio::sync::oneshot::channel::<()>();
    let phases = door.shutdown.phases();
    let ending = door.shutdown.run(plan, &door.tasks, async { drop(hurried.await) });
    let probing = async {
        phases.reached(Phase::NotReady).await;
        let answer = ask(door.address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("[-]shutdown failed: not-ready"), "{answer}");
        assert!(ask(door.address, "GET /livez").await.starts_with("HTTP/1.1 200"));
        hurry.send(()).unwrap();
    };
    let (outcome, ()) = tokio::join!(ending, probing);
    assert_eq!(outcome.unfinished, None);
}

//! An agent under test with its files, and the one way to wait.

use std::{future::Future, net::SocketAddr, time::Duration};

use moorline_agent::{App, Config, RawConfig, Surroundings};
use moorline_model::Timestamp;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

/// Longer than anything here should take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent. Stopped in order by [`Agent::stop`], or cut when dropped.
pub(crate) struct Agent {
    pub(crate) admin: SocketAddr,
    services: Vec<(String, SocketAddr)>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Agent {
    pub(crate) fn start(raw: &RawConfig) -> Self {
        Self::start_with(raw, &|_| None)
    }

    pub(crate) fn start_with(raw: &RawConfig, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let surroundings = Surroundings { variable, service_account: "/nowhere".into(), now: now() };
        let app = App::build(Config::resolve(raw, &surroundings).unwrap()).unwrap();
        let (admin, services) = (app.admin_addr().unwrap(), app.service_addrs());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = spawn(async move {
            app.run(async { drop(stopped.await) }).await.unwrap();
        });
        Self { admin, services, stop: Some(stop), running }
    }

    /// Asks it to stop; the handle ends when it has.
    pub(crate) fn stop(mut self) -> JoinHandle<()> {
        drop(self.stop.take());
        std::mem::replace(&mut self.running, spawn(async {}))
    }

    /// Where a service of the management cluster is found.
    pub(crate) fn service(&self, name: &str) -> SocketAddr {
        self.services.iter().find(|(offered, _)| offered == name).unwrap().1
    }

    /// The text of a page of the admin door.
    pub(crate) async fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).await.unwrap();
        page
    }

    /// Waits until `/readyz` says these words.
    pub(crate) async fn says(&self, words: &str) {
        self.becomes("/readyz?verbose", |page| page.contains(words), words).await;
    }

    /// Waits until `/metrics` has this line: the whole name with its labels, and the value.
    pub(crate) async fn shows(&self, line: &str) {
        self.becomes("/metrics", |page| page.lines().any(|found| found == line), line).await;
    }

    async fn becomes(&self, path: &str, so: impl Fn(&str) -> bool, words: &str) {
        let mut last = String::new();
        let found = within(async {
            loop {
                last = self.page(path).await;
                if so(&last) {
                    return;
                }
                pause().await;
            }
        });
        if found.await.is_none() {
            panic!("{last:?} lacks {words:?}");
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.running.abort();
        }
    }
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_seconds(i64::try_from(since.as_secs()).unwrap())
}

/// Waits until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = within(async {
        while !holds() {
            pause().await;
        }
    });
    assert!(waiting.await.is_some(), "not in time: {what}");
}

/// Cuts off what hangs.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, work).await.ok()
}

/// Between two looks.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[expect(clippy::disallowed_methods, reason = "the scripted ends live outside of the process under test")]
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

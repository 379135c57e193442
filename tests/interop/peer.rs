//! Builds the Go program, runs it, and talks to it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use moorline_mux::{CloseReason, Config, Handle, Incoming, Role, Stream};
use moorline_testkit::go_program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Far more than any step takes.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("no end within a minute")
}

/// The program, built if it is not there yet; `None` without Go.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/peer");
    PROGRAM.get_or_init(|| go_program::build_or_skip(&source).unwrap()).as_deref()
}

/// A session with the Go program.
pub(crate) struct Session {
    pub(crate) handle: Handle,
    pub(crate) driver: JoinHandle<CloseReason>,
    serving: JoinHandle<()>,
    go: Child,
}

/// Runs a test against Go in both roles, ours being the one that is passed on.
pub(crate) fn both_roles<F: AsyncFn(Config)>(test: F) {
    if program().is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for role in [Role::Client, Role::Server] {
        eprintln!("our role: {role:?}");
        runtime.block_on(test(Config::new(role)));
    }
}

#[expect(clippy::disallowed_methods, reason = "tests of a library have no task tracker")]
pub(crate) async fn connect(config: Config) -> Session {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let go_role = match config.role() {
        Role::Client => "server",
        Role::Server => "client",
    };
    let go = Command::new(program().unwrap())
        .arg("-address")
        .arg(listener.local_addr().unwrap().to_string())
        .args(["-role", go_role, "-keepalive", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (io, _) = within(listener.accept()).await.unwrap();
    io.set_nodelay(true).unwrap();
    let config = config.with_read_silence(Some(Duration::from_secs(15))).build().unwrap();
    let (handle, incoming, driver) = moorline_mux::session(io, config);
    Session { handle, driver: tokio::spawn(driver), serving: tokio::spawn(echo_all(incoming)), go }
}

/// Echoes what Go opens.
#[expect(clippy::disallowed_methods, reason = "tests of a library have no task tracker")]
async fn echo_all(mut incoming: Incoming) {
    while let Some(stream) = incoming.accept().await {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            // A failure shows at Go's end.
            let _sent = tokio::io::copy(&mut read, &mut write).await;
            let _ended = write.shutdown().await;
            drop(read.unsplit(write));
        });
    }
}

impl Session {
    /// Opens a stream and gives Go a command.
    pub(crate) async fn command(&self, line: &str) -> Stream {
        let mut stream = within(self.handle.open()).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        stream.write_all(b"\n").await.unwrap();
        stream
    }

    /// Gives a command and reads the answer to its end.
    pub(crate) async fn ask(&self, line: &str) -> String {
        let mut stream = self.command(line).await;
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        stream.shutdown().await.unwrap();
        answer.trim().to_owned()
    }

    pub(crate) async fn kill(&mut self) {
        self.go.kill().await.unwrap();
    }

    /// Waits for the Go program to end by itself, which it does when its session has ended.
    pub(crate) async fn go_ends(mut self) -> String {
        let mut said = String::new();
        let mut stdout = self.go.stdout.take().unwrap();
        within(stdout.read_to_string(&mut said)).await.unwrap();
        assert!(within(self.go.wait()).await.unwrap().success());
        within(self.serving).await.unwrap();
        said
    }
}

/// The same bytes as `pattern` in `peer/main.go`.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| ((i * 7 + (i >> 9)) & 0xFF) as u8).collect()
}

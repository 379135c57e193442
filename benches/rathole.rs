//! The relay to compare with: rathole, its server and client as processes, TLS between them.
//!
//! Called by `through_the_house` and `services`. Makes its keys with the `openssl` program, since rathole wants them in PKCS#12.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use moorline_testkit::eventually;
use moorline_testkit::link::Link;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::ways::Way;

const VARIABLE: &str = "MOORLINE_BENCH_RATHOLE";

/// For both ends to find each other.
const LIMIT: Duration = Duration::from_secs(20);

/// A relay to one address; gone when dropped.
pub(crate) struct Rathole {
    /// What is sent here goes to the origin.
    address: SocketAddr,
    _processes: [Running; 2],
    _link: Option<Link>,
    _directory: TempDir,
}

struct Running(Child);

impl Rathole {
    /// A relay to `origin` over a tunnel of that round trip; none where no program is named.
    ///
    /// # Errors
    /// When it does not work.
    pub(crate) async fn start(origin: SocketAddr, round_trip: Option<Duration>) -> Result<Option<Self>> {
        let Some(program) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let program = Path::new(&program);
        let directory = tempfile::tempdir()?;
        let at = directory.path();
        keys(at)?;
        let (tunnel, address) = (free().await?, free().await?);
        let link = match round_trip {
            None => None,
            Some(round_trip) => {
                let link = Link::to(tunnel).await?;
                link.set_round_trip(round_trip);
                Some(link)
            }
        };
        let reached = link.as_ref().map_or(tunnel, Link::address);
        let identity = at.join("identity.p12");
        let server = format!(
            "[server]\nbind_addr = \"{tunnel}\"\ndefault_token = \"bench\"\n[server.transport]\ntype = \"tls\"\n\
             [server.transport.tls]\npkcs12 = {identity:?}\npkcs12_password = \"bench\"\n\
             [server.services.origin]\nbind_addr = \"{address}\"\n"
        );
        let trusted = at.join("authority.crt");
        let client = format!(
            "[client]\nremote_addr = \"{reached}\"\ndefault_token = \"bench\"\n[client.transport]\ntype = \"tls\"\n\
             [client.transport.tls]\ntrusted_root = {trusted:?}\nhostname = \"localhost\"\n\
             [client.services.origin]\nlocal_addr = \"{origin}\"\n"
        );
        let processes = [run(program, at, "--server", &server)?, run(program, at, "--client", &client)?];
        let through = async || through(address).await.ok();
        eventually(LIMIT, through).await.context("rathole lets nothing through")?;
        Ok(Some(Self { address, _processes: processes, _link: link, _directory: directory }))
    }

    /// The way through it, by name.
    pub(crate) fn way(&self) -> (&'static str, Way) {
        ("rathole", Way::Plain(self.address))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn run(program: &Path, at: &Path, role: &str, config: &str) -> Result<Running> {
    let file = at.join(format!("{role}.toml"));
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg(role).arg(&file).env("RUST_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Running(command.spawn().with_context(|| format!("starting {}", program.display()))?))
}

/// An authority, and a server's certificate by it.
fn keys(at: &Path) -> Result<()> {
    std::fs::write(at.join("names"), "subjectAltName=DNS:localhost")?;
    for line in [
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout authority.key -out authority.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -days 2 -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -extfile names \
         -out server.crt",
        "pkcs12 -export -passout pass:bench -inkey server.key -in server.crt -certfile authority.crt \
         -out identity.p12",
    ] {
        let mut command = Command::new("openssl");
        let done = command.args(line.split_whitespace()).current_dir(at).output().context("starting openssl")?;
        ensure!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// An address that nobody listens on, as rathole cannot say which one it took.
async fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?)
}

/// Whether the origin answers.
async fn through(address: SocketAddr) -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"GET /bytes/1 HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "no answer");
    Ok(())
}

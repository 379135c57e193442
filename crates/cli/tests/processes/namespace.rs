//! Network namespaces and the wires between them. Linux only, by the programs `unshare`, `nsenter` and `ip`; where those
//! or the rights are missing, the tests that need them say so loudly, or fail if they are required.

use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Child, Command, Stdio},
};

use moorline_testkit::{client::LIMIT, eventually};

/// Set to 1 where such tests must run.
const REQUIRED: &str = "MOORLINE_REQUIRE_NAMESPACES";

/// Where the programs are, for commands whose environment is empty.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A hardware address that nobody has: what is sent there is dropped without a word.
const NOBODY: &str = "02:00:00:00:00:01";

/// How `unshare` makes a namespace of this kind here, if it can, and if this then works in it. Says loudly what is
/// skipped otherwise, or fails where namespaces are required.
pub(crate) fn possible(test: &str, kind: &'static str, probe: &str) -> Option<Vec<&'static str>> {
    for flags in [vec![kind], vec!["--map-root-user", kind]] {
        if works(Command::new("unshare").args(&flags).args(["sh", "-c", probe])) {
            return Some(flags);
        }
    }
    #[expect(clippy::disallowed_methods, reason = "whether it may be skipped is for whoever runs it to say")]
    let required = std::env::var(REQUIRED).is_ok_and(|value| value == "1");
    assert!(!required, "namespaces are required here ({REQUIRED}=1) but `unshare {kind}` and `{probe}` do not work");
    // Past the harness, which keeps what a passing test prints.
    let text =
        format!("SKIPPED {test}: `unshare {kind}` and `{probe}` do not work here (programs or rights missing)\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    None
}

/// Runs an ignored test of this binary in a network namespace of its own.
pub(crate) async fn alone(test: &str) {
    let probe = "ip link add name probe0 type veth peer name probe1";
    let Some(unshare) = possible(test, "--net", probe) else { return };
    let output = tokio::process::Command::new("unshare")
        .args(unshare)
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", test])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace beside that of this process; ends with its keeper.
pub(crate) struct Namespace(Child);

/// A cable from this namespace to another.
pub(crate) struct Wire {
    number: u8,
    namespace: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        // Reads what never comes, and ends when this process does.
        let keeper = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        Self(keeper.unwrap())
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// A command that runs in it, with an empty environment.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Command {
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", PATH);
        command.arg(format!("--net={}", self.path())).arg(program).args(arguments);
        command
    }

    /// Lays a wire, `10.201.NUMBER.0/24`: this end is `.1`, the far one `.2`.
    pub(crate) async fn wire(&self, number: u8) -> Wire {
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = async || std::fs::read_link(self.path()).ok().filter(|theirs| *theirs != ours);
        eventually(LIMIT, theirs).await.expect("the namespace is made");
        let wire = Wire { number, namespace: self.path() };
        let (near, far) = (wire.name("near"), wire.name("far"));
        let peer = ["type", "veth", "peer", "name", &far, "netns", &self.0.id().to_string()];
        run(Command::new("ip").args(["link", "add", "name", &near]).args(peer));
        run(Command::new("ip").args(["address", "add", &format!("{}/24", wire.near()), "dev", &near]));
        run(Command::new("ip").args(["link", "set", &near, "up"]));
        run(&mut wire.there(&["address", "add", &format!("{}/24", wire.far()), "dev", &far]));
        run(&mut wire.there(&["link", "set", &far, "up"]));
        run(&mut wire.there(&["link", "set", "lo", "up"]));
        wire
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Wire {
    pub(crate) fn near(&self) -> String {
        format!("10.201.{}.1", self.number)
    }

    pub(crate) fn far(&self) -> String {
        format!("10.201.{}.2", self.number)
    }

    /// From now on everything sent at either end is lost, and neither end is told.
    pub(crate) fn drop_packets(&self) {
        let (near, far) = (self.name("near"), self.name("far"));
        let nobody = ["lladdr", NOBODY, "nud", "permanent", "dev"];
        run(Command::new("ip").args(["neighbour", "replace", &self.far()]).args(nobody).arg(near));
        run(self.there(&["neighbour", "replace", &self.near()]).args(nobody).arg(far));
    }

    /// The ends find each other again.
    pub(crate) fn heal(&self) {
        run(Command::new("ip").args(["neighbour", "del", &self.far(), "dev", &self.name("near")]));
        run(&mut self.there(&["neighbour", "del", &self.near(), "dev", &self.name("far")]));
    }

    fn name(&self, end: &str) -> String {
        format!("{end}{}", self.number)
    }

    fn there(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace)).arg("ip").args(arguments);
        command
    }
}

/// TCP segments that this namespace has sent more than once.
pub(crate) fn retransmitted() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    names.zip(values).find(|(name, _)| *name == "RetransSegs").and_then(|(_, value)| value.parse().ok()).unwrap()
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn works(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
}

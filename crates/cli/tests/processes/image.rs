//! What is in the images, run as a pod of the restricted level runs it: a root of its own that is read-only, nobody's user,
//! no capabilities, and nothing of this machine but its network and the devices that every container has. Needs root.
//!
//! `cargo xtask image` makes the archives; where they are is for whoever runs the test to say.

use std::{
    fs::Permissions,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use http::{Method, StatusCode};
use moorline_testkit::upstream::Upstream;

use super::{
    house::{Agent, Server, server_flags},
    namespace::possible,
    program::moorline,
};

/// Where `agent.tar` and `server.tar` are.
const IMAGES: &str = "MOORLINE_IMAGES";

/// Of the user in the images.
const USER: &str = "65532:65532";

/// `$1`: the root; `$2`: user and group; then directories that are mounted at the same path within, `ro:` or `rw:` before
/// each, then `--` and the command line.
const RUN: &str = r#"
set -e
root=$1; who=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,ro "$root/dev"
while [ "$1" != -- ]; do
    mount --bind "${1#*:}" "$root${1#*:}"
    [ "${1%%:*}" = rw ] || mount -o remount,bind,ro "$root${1#*:}"
    shift
done
shift
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$who" --groups="${who#*:}" "$root" "$@"
"#;

/// An image that was unpacked.
struct Image {
    root: tempfile::TempDir,
    unshare: Vec<&'static str>,
}

impl Image {
    /// The image of that name, if it is to be tested and this machine can.
    fn unpacked(test: &str, name: &str) -> Option<Self> {
        let Some(images) = images() else {
            let text = format!("SKIPPED {test}: {IMAGES} does not say where the images are (cargo xtask image)\n");
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            return None;
        };
        let unshare = possible(
            test,
            "--mount",
            "mount -t tmpfs tmpfs /mnt && setpriv --no-new-privs chroot --userspec=65532:65532 / true",
        )?;
        let root = tempfile::tempdir().unwrap();
        let archive = images.join(format!("{name}.tar"));
        let mut unpack = Command::new("tar");
        unpack.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(root.path());
        assert!(unpack.status().unwrap().success(), "{}", archive.display());
        // Everybody may look into a container's root.
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        // As kubelet writes it.
        std::fs::write(root.path().join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        Some(Self { root, unshare })
    }

    /// The program of the image instead of `moorline SUBCOMMAND`, with these directories.
    fn run(&self, program: &str, command: &Command, directories: &[(&str, &Path)]) -> Command {
        let mut run = Command::new("unshare");
        run.args(&self.unshare).args(["sh", "-c", RUN, "sh"]).arg(self.root.path()).arg(USER);
        for (mode, directory) in directories {
            std::fs::create_dir_all(within(self.root.path(), directory)).unwrap();
            let owned = Command::new("chown").args(["--recursive", USER]).arg(directory).status().unwrap();
            assert!(owned.success());
            run.arg(format!("{mode}:{}", directory.display()));
        }
        run.args(["--", program]).args(command.get_args().skip(1));
        run
    }
}

fn within(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap())
}

fn images() -> Option<PathBuf> {
    std::env::var_os(IMAGES).map(PathBuf::from)
}

#[tokio::test]
async fn images_carry_a_request_on_a_read_only_root_as_nobody() {
    const TEST: &str = "images_carry_a_request_on_a_read_only_root_as_nobody";
    let (Some(server), Some(agent)) = (Image::unpacked(TEST, "server"), Image::unpacked(TEST, "agent")) else { return };
    let state = tempfile::tempdir().unwrap();
    let command = moorline(&server_flags(state.path(), &[]));
    let run = server.run("/usr/bin/moorline-server", &command, &[("rw", state.path())]);
    let house = Server::run(state, run).await;
    let upstream = Upstream::start().await.unwrap();
    let created = house.create("west").await;
    // By a name, so that the resolver is tried which the program brings along.
    let tunnel = format!("localhost:{}", house.tunnel.port());
    let agent = Agent::start_with(&created, tunnel, &upstream, |command| {
        let files = command.get_args().skip_while(|argument| *argument != "--cert-dir").nth(1).unwrap().to_owned();
        agent.run("/usr/bin/moorline-agent", &command, &[("ro", Path::new(&files))])
    })
    .await;
    house.connected("west").await;
    let user = house.user();
    let answer = user.ask(user.request(Method::GET, "/clusters/west/api/v1/namespaces")).await.unwrap();
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
    for program in [&house.program, &agent.program] {
        is_nobody(program.id());
    }
}

/// What a pod of the restricted level is: another user, without capabilities and without a way to get some.
fn is_nobody(id: u32) {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["65532"; 4]);
    assert_eq!(field("Gid:"), ["65532"; 4]);
    assert_eq!((field("CapEff:"), field("NoNewPrivs:")), (vec!["0".repeat(16)], vec!["1".to_owned()]));
    let mounts = std::fs::read_to_string(format!("/proc/{id}/mounts")).unwrap();
    let root = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/")).unwrap();
    assert!(root.split(' ').nth(3).unwrap().split(',').any(|option| option == "ro"), "{root}");
}

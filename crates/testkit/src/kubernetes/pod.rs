//! Does what a kubelet would do with the pod of a Deployment, so far as a manifest of ours asks for it: its volumes, its
//! service account's token, its user, its read-only root, its arguments and its environment, as they stand in the API.
//!
//! The program runs in a mount namespace of its own on a root that holds nothing but what the manifest mounts, this
//! machine's libraries and the program. It shares the network of this machine, so each port of the container that the
//! manifest names is mapped to a free one, by a variable and in its probes: that is the one thing that differs.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::Method;
use serde_json::{Value, json};

use super::{ApiClient, ControlPlane, program::Program};
use crate::house::plain_get;

/// Where every pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// `$1`: the root to build; `$2`: user and group; then pairs of a directory and where it is mounted (`ro:`, `rw:` before
/// it), then `--`, the program and its arguments.
const RUN: &str = r#"
set -e
root=$1; who=$2; shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$root"
for directory in usr lib lib64 bin sbin; do
    [ -e "/$directory" ] || continue
    mkdir "$root/$directory"
    mount --rbind "/$directory" "$root/$directory"
    mount -o remount,bind,ro "$root/$directory" 2>/dev/null || true
done
mkdir "$root/proc" "$root/dev" "$root/etc" "$root/program"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
for file in resolv.conf hosts nsswitch.conf; do
    [ -e "/etc/$file" ] && cp "/etc/$file" "$root/etc/$file"
done
while [ "$1" != -- ]; do
    kind=${1%%:*}; at=$root${1#*:}; from=$2; shift 2
    mkdir -p "$at"
    mount --bind "$from" "$at"
    [ "$kind" = rw ] || mount -o remount,bind,ro "$at"
done
shift
mount --bind "$(dirname "$1")" "$root/program"
mount -o remount,bind,ro "$root/program"
program=/program/$(basename "$1"); shift
mount -o remount,ro "$root"
exec chroot --userspec="$who" --groups="${who#*:}" "$root" "$program" "$@"
"#;

/// A running pod. Dropping it kills the program.
#[derive(Debug)]
pub struct Pod {
    program: Mutex<Program>,
    root: PathBuf,
    ports: Ports,
    readiness: Option<(u64, String)>,
}

/// The ports that a container names, each with one of this machine.
type Ports = BTreeMap<u64, u16>;

/// What a pod is made from besides its manifest.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// What the image's entry point is: the program, by its path on this machine.
    pub entrypoint: &'a Path,
    /// Arguments that belong to the entry point.
    pub arguments: &'a [&'a str],
    /// For each port of a container that the program is told by a variable where it listens: which.
    pub listens: &'a [(u64, &'a str)],
    /// Ports of this machine that stand for ports of the container, where they have to be known before.
    pub ports: BTreeMap<u64, u16>,
    /// Directories that stand for volumes that outlive pods, by the claim's name.
    pub claims: BTreeMap<String, PathBuf>,
}

/// The pieces of a pod's command line.
struct Plan<'a> {
    api: &'a ApiClient,
    namespace: &'a str,
    spec: &'a Value,
    directory: PathBuf,
    group: Option<u32>,
}

impl ControlPlane {
    /// Runs the first container of the Deployment's pod. Its volumes are as the API has them now.
    ///
    /// # Errors
    /// When the Deployment is not there, or asks for something that is not simulated here, or for what no restricted
    /// namespace would admit.
    pub async fn run_deployment(&self, namespace: &str, name: &str, image: Image<'_>) -> Result<Pod> {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
        let deployment = self.api().get(&path).await?;
        let spec = deployment.pointer("/spec/template/spec").context("a Deployment without a pod")?;
        let container = spec.pointer("/containers/0").context("a pod without containers")?;
        let security = |key: &str| {
            let own = container.pointer(&format!("/securityContext/{key}"));
            own.or_else(|| spec.pointer(&format!("/securityContext/{key}")))
        };
        ensure!(security("readOnlyRootFilesystem") == Some(&json!(true)), "its root is not read-only");
        let number = |key: &str| security(key).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let user = number("runAsUser").unwrap_or(65532);
        let group = number("runAsGroup").unwrap_or(user);
        let directory = self.directory().join(format!("pod-{name}-{}", rand::random::<u32>()));
        fs::create_dir_all(directory.join("root"))?;
        let fs_group = number("fsGroup");
        let plan = Plan { api: self.api(), namespace, spec, directory: directory.clone(), group: fs_group };
        let mounts = plan.mounts(container, &image, user).await?;
        let ports = ports(container, &image.ports)?;
        let mut arguments = vec!["--mount".to_owned(), "env".to_owned(), "-i".to_owned()];
        arguments.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        arguments.push("KUBERNETES_SERVICE_HOST=127.0.0.1".to_owned());
        arguments.push(format!("KUBERNETES_SERVICE_PORT={}", self.address().port()));
        arguments.extend(plan.environment(container).await?);
        for (port, variable) in image.listens {
            let at = ports.get(port).with_context(|| format!("the container has no port {port}"))?;
            arguments.push(format!("{variable}=127.0.0.1:{at}"));
        }
        arguments.extend(["sh".to_owned(), "-c".to_owned(), RUN.to_owned(), name.to_owned()]);
        arguments.push(directory.join("root").display().to_string());
        arguments.push(format!("{user}:{}", fs_group.unwrap_or(group)));
        arguments.extend(mounts);
        arguments.push("--".to_owned());
        arguments.push(image.entrypoint.display().to_string());
        arguments.extend(image.arguments.iter().map(|&word| word.to_owned()));
        let given = container["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
        arguments.extend(given.map(str::to_owned));
        let readiness = container.pointer("/readinessProbe/httpGet").map(|probe| {
            let port = port_number(container, &probe["port"]);
            (port, probe["path"].as_str().unwrap_or("/").to_owned())
        });
        let program = Program::start("pod", Path::new("unshare"), arguments, &directory, None)?;
        Ok(Pod { program: Mutex::new(program), root: directory, ports, readiness })
    }
}

impl Pod {
    /// Where a port of the container is on this machine.
    #[must_use]
    pub fn port(&self, container_port: u64) -> Option<u16> {
        self.ports.get(&container_port).copied()
    }

    /// Whether its readiness probe answers 200, as a kubelet would ask it.
    ///
    /// # Errors
    /// When the program has ended, with the end of its log.
    pub async fn ready(&self) -> Result<bool> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).check()?;
        let Some((port, path)) = &self.readiness else { return Ok(true) };
        let port = self.port(*port).map_or_else(|| u16::try_from(*port), Ok)?;
        let answer = plain_get(SocketAddr::from(([127, 0, 0, 1], port)), path).await;
        Ok(answer.is_ok_and(|text| text.starts_with("HTTP/1.1 200")))
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("pod.log")).unwrap_or_default()
    }

    /// Whether a mount namespace can be made here, which takes root.
    #[must_use]
    pub fn possible() -> bool {
        let probe = Command::new("unshare").args(["--mount", "true"]).output();
        probe.is_ok_and(|output| output.status.success())
    }
}

impl Plan<'_> {
    /// `kind:where` and the directory, for each mount of the container.
    async fn mounts(&self, container: &Value, image: &Image<'_>, user: u32) -> Result<Vec<String>> {
        let mut mounts = Vec::new();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let name = mount["name"].as_str().context("a mount without a name")?;
            let volumes = self.spec["volumes"].as_array().into_iter().flatten();
            let volume = volumes.clone().find(|volume| volume["name"] == name).context("a mount without a volume")?;
            let (from, writable) = self.volume(name, volume, image, user).await?;
            let kind = if writable && mount["readOnly"] != json!(true) { "rw" } else { "ro" };
            let at = mount["mountPath"].as_str().context("a mount without a path")?;
            mounts.extend([format!("{kind}:{at}"), from.display().to_string()]);
        }
        if self.spec["automountServiceAccountToken"] != json!(false) {
            let from = self.directory.join("account");
            self.write(&from, &self.account(None, "token", 3607).await?, 0o644)?;
            mounts.extend([format!("ro:{ACCOUNT}"), from.display().to_string()]);
        }
        Ok(mounts)
    }

    async fn volume(&self, name: &str, volume: &Value, image: &Image<'_>, user: u32) -> Result<(PathBuf, bool)> {
        let at = self.directory.join("volumes").join(name);
        let mode = |source: &Value| u32::try_from(source["defaultMode"].as_u64().unwrap_or(0o644)).unwrap_or(0o644);
        if let Some(source) = volume.get("secret") {
            self.write(&at, &self.secret(source, "secretName").await?, mode(source))?;
        } else if let Some(source) = volume.get("configMap") {
            self.write(&at, &self.config_map(source).await?, mode(source))?;
        } else if let Some(source) = volume.get("projected") {
            let mut files = BTreeMap::new();
            for part in source["sources"].as_array().into_iter().flatten() {
                files.extend(self.projected(part).await?);
            }
            self.write(&at, &files, mode(source))?;
        } else if volume.get("emptyDir").is_some() {
            fs::create_dir_all(&at)?;
            // As a kubelet makes it: for the group of the pod, or for all.
            fs::set_permissions(&at, fs::Permissions::from_mode(0o777))?;
            return Ok((at, true));
        } else if let Some(claim) = volume.get("persistentVolumeClaim") {
            let claim = claim["claimName"].as_str().context("a claim without a name")?;
            let at = image.claims.get(claim).with_context(|| format!("no directory for the claim {claim}"))?;
            fs::create_dir_all(at)?;
            chown(at, Some(0), Some(self.group.unwrap_or(0)))?;
            let mode = if self.group.is_some() { 0o2775 } else { 0o755 };
            if fs::metadata(at)?.permissions().mode() & 0o7777 != mode {
                fs::set_permissions(at, fs::Permissions::from_mode(mode))?;
            }
            return Ok((at.clone(), true));
        } else {
            anyhow::bail!("the volume {name} of user {user} is of a kind that is not simulated: {volume}");
        }
        Ok((at, false))
    }

    async fn projected(&self, part: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
        if let Some(token) = part.get("serviceAccountToken") {
            let path = token["path"].as_str().unwrap_or("token");
            let life = token["expirationSeconds"].as_u64().unwrap_or(3600);
            let mut files = self.account(token["audience"].as_str(), path, life).await?;
            files.retain(|name, _| name == path);
            return Ok(files);
        }
        if let Some(source) = part.get("configMap") {
            if source["name"] == "kube-root-ca.crt" {
                // The controller manager's, which does not run here.
                return Ok([("ca.crt".to_owned(), self.authority()?)].into());
            }
            return self.config_map(source).await;
        }
        if let Some(source) = part.get("secret") {
            return self.secret(source, "name").await;
        }
        if part.get("downwardAPI").is_some() {
            return Ok([("namespace".to_owned(), self.namespace.as_bytes().to_vec())].into());
        }
        anyhow::bail!("a projection that is not simulated: {part}")
    }

    async fn secret(&self, source: &Value, key: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let name = source[key].as_str().context("a Secret without a name")?;
        let path = format!("/api/v1/namespaces/{}/secrets/{name}", self.namespace);
        let answer = self.api.call(Method::GET, &path, None).await?;
        if answer.status == 404 && source["optional"] == json!(true) {
            return Ok(BTreeMap::new());
        }
        let object = answer.ok()?;
        let data = object["data"].as_object().into_iter().flatten();
        let files = data.map(|(name, text)| {
            Ok((name.clone(), BASE64_STANDARD.decode(text.as_str().context("a Secret with something else")?)?))
        });
        Ok(selected(files.collect::<Result<_>>()?, source))
    }

    async fn config_map(&self, source: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
        let name = source["name"].as_str().context("a ConfigMap without a name")?;
        let object = self.api.get(&format!("/api/v1/namespaces/{}/configmaps/{name}", self.namespace)).await?;
        let data = object["data"].as_object().into_iter().flatten();
        let files = data.map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().as_bytes().to_vec()));
        Ok(selected(files.collect(), source))
    }

    /// What a pod finds of its service account.
    async fn account(&self, audience: Option<&str>, path: &str, life: u64) -> Result<BTreeMap<String, Vec<u8>>> {
        let name = self.spec["serviceAccountName"].as_str().unwrap_or("default");
        let mut request = json!({ "spec": { "expirationSeconds": life } });
        if let Some(audience) = audience {
            request["spec"]["audiences"] = json!([audience]);
        }
        let path_of = format!("/api/v1/namespaces/{}/serviceaccounts/{name}/token", self.namespace);
        let answer = self.api.call(Method::POST, &path_of, Some(&request)).await?.ok().context("a token")?;
        let token = answer.pointer("/status/token").and_then(Value::as_str).context("no token")?;
        Ok([
            (path.to_owned(), token.as_bytes().to_vec()),
            ("ca.crt".to_owned(), self.authority()?),
            ("namespace".to_owned(), self.namespace.as_bytes().to_vec()),
        ]
        .into())
    }

    fn authority(&self) -> Result<Vec<u8>> {
        Ok(self.api.authority_pem.as_bytes().to_vec())
    }

    async fn environment(&self, container: &Value) -> Result<Vec<String>> {
        let mut variables = Vec::new();
        for source in container["envFrom"].as_array().into_iter().flatten() {
            let source = source.get("configMapRef").context("variables from something that is not simulated")?;
            for (name, value) in self.config_map(source).await? {
                variables.push(format!("{name}={}", String::from_utf8(value)?));
            }
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().context("a variable without a name")?;
            let value = if let Some(value) = variable["value"].as_str() {
                value.to_owned()
            } else if let Some(reference) = variable.pointer("/valueFrom/secretKeyRef") {
                let key = reference["key"].as_str().context("a reference without a key")?;
                let secret = self.secret(reference, "name").await?;
                String::from_utf8(secret.get(key).cloned().unwrap_or_default())?
            } else {
                match variable.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str) {
                    Some("metadata.namespace") => self.namespace.to_owned(),
                    Some("metadata.name") => "simulated".to_owned(),
                    Some("spec.nodeName") => "node".to_owned(),
                    _ => anyhow::bail!("a variable that is not simulated: {variable}"),
                }
            };
            variables.push(format!("{name}={value}"));
        }
        Ok(variables)
    }

    /// In a kubelet's way: a directory for each version, and a link to it that is replaced at once.
    fn write(&self, at: &Path, files: &BTreeMap<String, Vec<u8>>, mode: u32) -> Result<()> {
        let version = at.join("..one");
        fs::create_dir_all(&version)?;
        for (name, content) in files {
            let file = version.join(name);
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&file, content)?;
            chown(&file, Some(0), Some(self.group.unwrap_or(0)))?;
            let mode = if self.group.is_some() { mode | 0o440 } else { mode };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
            symlink(Path::new("..data").join(name), at.join(name))?;
        }
        symlink("..one", at.join("..data"))?;
        Ok(())
    }
}

/// Those that `items` names, under the names that it gives them; all where there is none.
fn selected(files: BTreeMap<String, Vec<u8>>, source: &Value) -> BTreeMap<String, Vec<u8>> {
    let Some(items) = source["items"].as_array() else { return files };
    let named = |item: &Value| {
        let content = files.get(item["key"].as_str()?)?;
        Some((item["path"].as_str()?.to_owned(), content.clone()))
    };
    items.iter().filter_map(named).collect()
}

fn ports(container: &Value, wanted: &Ports) -> Result<Ports> {
    let declared =
        container["ports"].as_array().into_iter().flatten().filter_map(|port| port["containerPort"].as_u64());
    declared.map(|port| Ok((port, wanted.get(&port).copied().map_or_else(free_port, Ok)?))).collect()
}

/// One that nobody has now, and another at each call. The program binds it itself, so it cannot be kept for it until then;
/// it is none of those that the kernel gives to whoever names no port.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    // Linux gives away 32768 and above: Documentation/networking/ip-sysctl, ip_local_port_range.
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    // Other processes that look for some begin elsewhere.
    static TURN: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    for _ in 0..COUNT {
        let port = FIRST + TURN.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port from {FIRST} on is free")
}

fn port_number(container: &Value, port: &Value) -> u64 {
    let declared = || container["ports"].as_array().into_iter().flatten();
    let named = declared().find(|one| one["name"] == *port).and_then(|one| one["containerPort"].as_u64());
    port.as_u64().or(named).unwrap_or(0)
}

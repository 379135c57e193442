//! The same scenarios where the agent speaks Guardian's dialect, beside clusters with agents of ours in the same server:
//! with the stand-in of the interop ring, and with Calico's Guardian itself.
//!
//! The manifest is applied as a user of Calico does it. What Calico's operator does then is simulated: it takes the
//! Secret and the connection from the kube-apiserver and starts a Guardian with what they say, as its own account.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use moorline_api::CreatedCluster;
use moorline_manifest::agent::{Address, Certificates};
use moorline_manifest::guardian::{Credential, Manifest, Written};
use moorline_testkit::guardian::{Real, Settings, StandIn, connected, create};
use moorline_testkit::house::Server;
use moorline_testkit::kubernetes::{Kubectl, PodSpec};
use tokio::sync::OnceCell;

use crate::kube::Kube;
use crate::stage::{Caller, Cluster, Stage};
use crate::tunnel::{ALICE, ALICES_GROUPS, House, POWERLESS, POWERLESS_GROUPS, RUNTIME, caller, house};

/// Who a Guardian is in its cluster.
const GUARDIAN: &str = "system:serviceaccount:calico-system:guardian";

/// What the cluster of the stand-in goes by, and that of the real one.
const NAMES: [&str; 2] = ["guarded", "calico"];

/// What Calico's operator brings along, as far as the manifest touches it.
const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: managementclusterconnections.operator.tigera.io}
spec:
  group: operator.tigera.io
  scope: Cluster
  names: {kind: ManagementClusterConnection, plural: managementclusterconnections}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              managementClusterAddr: {type: string}
              tls: {type: object, properties: {ca: {type: string, enum: [Tigera, Public]}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: tigera-operator}
"#;

/// Kept until the process ends, like the house.
enum Guardian {
    StandIn { _running: StandIn },
    Real { _running: Real },
}

static STAND_IN: OnceCell<Option<Guardian>> = OnceCell::const_new();
static REAL: OnceCell<Option<Guardian>> = OnceCell::const_new();

async fn stand_in(version: Kubectl) -> Option<Stage> {
    let house = house().await?;
    let start = || async { RUNTIME.spawn(start_stand_in(house)).await.unwrap() };
    STAND_IN.get_or_init(start).await.as_ref()?;
    stage(house, 0, version).await
}

async fn real(version: Kubectl) -> Option<Stage> {
    let house = house().await?;
    let start = || async { RUNTIME.spawn(start_real(house)).await.unwrap() };
    REAL.get_or_init(start).await.as_ref()?;
    stage(house, 1, version).await
}

async fn start_stand_in(house: &'static House) -> Option<Guardian> {
    let settings = operate(&house.server, NAMES[0], house.clusters[0]).await;
    let running = StandIn::start_or_skip(&settings).await.unwrap()?;
    connected(&house.server.admin_client().unwrap(), NAMES[0]).await.unwrap();
    Some(Guardian::StandIn { _running: running })
}

async fn start_real(house: &'static House) -> Option<Guardian> {
    let tools = Real::possible_or_skip()?;
    let settings = operate(&house.server, NAMES[1], house.clusters[1]).await;
    let running = Real::start(&tools, &settings).unwrap();
    connected(&house.server.admin_client().unwrap(), NAMES[1])
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", running.log()));
    Some(Guardian::Real { _running: running })
}

async fn stage(house: &'static House, number: usize, version: Kubectl) -> Option<Stage> {
    let from = |who: (&str, &str), groups: &[&str]| Caller {
        via: Some(GUARDIAN.to_owned()),
        ..caller(house.kubeconfig(NAMES[number], who), &format!("/clusters/{}", NAMES[number]), who.1, groups)
    };
    let (alice, powerless) = (from(ALICE, &ALICES_GROUPS), from(POWERLESS, &POWERLESS_GROUPS));
    Stage::set(house.clusters[number], version, &alice, &powerless).await
}

/// Registers the cluster, applies what comes of it, and does what the operator does with that.
async fn operate(server: &Server, name: &str, cluster: &Cluster) -> Settings {
    let plane = &cluster.plane;
    let kubectl = Kube {
        tools: plane.tools().clone(),
        version: Kubectl::New,
        kubeconfig: plane.admin_kubeconfig().unwrap(),
        prefix: String::new(),
        namespace: "tigera-operator".into(),
    };
    kubectl.ok_with(&["apply", "--filename=-"], DEFINITION.as_bytes()).await;
    let definition = "crd/managementclusterconnections.operator.tigera.io";
    kubectl.ok(&["wait", "--for=condition=Established", definition, "--timeout=60s"]).await;
    let created = create(&server.admin_client().unwrap(), name).await.unwrap();
    let manifest = manifest(&created, name, server);
    kubectl.ok_with(&["apply", "--filename=-"], manifest.as_bytes()).await;

    let connection = "/apis/operator.tigera.io/v1/managementclusterconnections/default";
    let address = plane.api().get(connection).await.unwrap();
    let secret = "/api/v1/namespaces/tigera-operator/secrets/tigera-managed-cluster-connection";
    let secret = plane.api().get(secret).await.unwrap();
    let files = plane.directory().join(format!("guardian-{name}"));
    let account = files.join("account");
    std::fs::create_dir_all(&account).unwrap();
    for (file, text) in secret["data"].as_object().unwrap() {
        let text = BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
        moorline_process::write_private(&files.join(file), &text).unwrap();
    }
    let token = plane.create_service_account("calico-system", "guardian").await.unwrap();
    for (file, text) in [("token", token), ("ca.crt", plane.ca_pem())] {
        moorline_process::write_private(&account.join(file), text.as_bytes()).unwrap();
    }
    let tunnel = address["spec"]["managementClusterAddr"].as_str().unwrap().parse().unwrap();
    Settings { account, ..Settings::new(tunnel, &files, &plane.url()) }
}

fn manifest(created: &CreatedCluster, name: &str, server: &Server) -> String {
    let enrolment = &created.enrolment;
    let certificates = Certificates {
        authorities: &enrolment.management_cluster_crt,
        certificate: &enrolment.managed_cluster_crt,
        key: enrolment.managed_cluster_key.expose(),
    };
    Manifest {
        install: &Written::default().resolve().unwrap(),
        cluster: &name.parse().unwrap(),
        address: &Address::parse(&server.tunnel.to_string(), 9449).unwrap(),
        credential: Credential::Whole(certificates),
    }
    .stream()
    .unwrap()
}

/// Guardian passes neither `/version` nor `/openapi` on: all that needs them no longer is the same.
async fn discover(stage: &Stage) {
    let kube = &stage.kube;
    let resources = kube.ok(&["api-resources", "-o", "name"]).await;
    for wanted in ["configmaps", "pods", "deployments.apps", "clusterroles.rbac.authorization.k8s.io"] {
        assert!(resources.lines().any(|line| line == wanted), "{wanted} in {resources}");
    }
    assert!(kube.ok(&["api-versions"]).await.contains("apps/v1\n"));
    let version = kube.run(&["get", "--raw", "/version"]).await;
    assert!(version.stderr.contains("Guardian"), "{version:?}");
}

/// Go's `ReverseProxy` hangs up as soon as one direction has failed. So where input is under way as a command ends, its
/// exit status may be lost within Guardian; what must hold is that everybody hears of the end.
async fn exec_without_reading_stdin(stage: &Stage) {
    stage.pod(PodSpec::idle("idle")).await;
    let kube = &stage.kube;
    let unread = vec![b'x'; 8 << 20];
    let ended = kube.run_with(&["exec", "-i", "idle", "--", "sh", "-c", "echo no; exit 4"], &unread).await;
    assert!(matches!(ended.code, Some(4 | 1)), "{ended:?}");
    let mut open = kube.start(&["exec", "-i", "idle", "--", "head", "-n", "1"]);
    open.say("only\nmore\n").await;
    assert_eq!(open.line().await, "only");
    assert_eq!(open.end_with_stdin_open().await, Some(0));
}

macro_rules! all {
    ($module:ident, $stage:path) => {
        mod $module {
            mod new {
                crate::scenarios::play!($stage, New,
                    objects: get, list_in_chunks, watch, apply, apply_server_side, patch, delete;
                    identity: whoami, can_i, forbidden;
                    logs: logs, logs_follow;
                    exec: exec, exec_with_stdin, exec_exit_codes, exec_bulk_output, exec_protocol;
                    terminal: exec_on_terminal, exec_follows_size;
                    attach: attach;
                    forward: port_forward, port_forward_refused;
                    copy: copy_64_mib;
                );

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn discover() {
                    if let Some(stage) = $stage(moorline_testkit::kubernetes::Kubectl::New).await {
                        crate::guardian::discover(&stage).await;
                        crate::audit::check(&stage).await;
                    }
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn exec_without_reading_stdin() {
                    if let Some(stage) = $stage(moorline_testkit::kubernetes::Kubectl::New).await {
                        crate::guardian::exec_without_reading_stdin(&stage).await;
                        crate::audit::check(&stage).await;
                    }
                }
            }

            // Of before there were WebSockets, and before OpenAPI of the third version: neither goes through Guardian.
            mod old {
                crate::scenarios::play!($stage, Old,
                    objects: get, list_in_chunks, watch, patch, delete;
                    identity: whoami, can_i, forbidden;
                    logs: logs;
                );
            }
        }
    };
}

all!(stand_in, crate::guardian::stand_in);
all!(real, crate::guardian::real);

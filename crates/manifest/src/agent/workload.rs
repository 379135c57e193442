//! The agent's pods.

use std::collections::BTreeMap;

use super::{ADMIN_PORT, Address, CERTIFICATES, Install, JOIN_TOKEN, connection, services};
use crate::{
    object::{AGENT, labels, list, map, object},
    yaml::Node,
};

/// Nobody's number: files of the image are root's, and read only.
const USER: i32 = 65532;

/// Where the Secret is mounted.
const CERTS: &str = "/certs";

/// From SIGTERM to SIGKILL: the agent's drain of 30 s, and what it takes to end.
const GRACE: i32 = 45;

/// Several replicas are not all taken away at once.
pub(super) fn budget(install: &Install) -> Option<Node> {
    (install.replicas > 1).then(|| {
        let mut budget = object("policy/v1", "PodDisruptionBudget", AGENT, Some(&install.namespace));
        budget.set("spec", map! { "maxUnavailable" => 1, "selector" => selector() });
        budget
    })
}

/// The Deployment: a new pod is connected before an old one goes.
pub(super) fn deployment(install: &Install, address: &Address, joins: bool) -> Node {
    let mut deployment = object("apps/v1", "Deployment", AGENT, Some(&install.namespace));
    deployment.set(
        "spec",
        map! {
            "replicas" => i32::from(install.replicas),
            "revisionHistoryLimit" => 3,
            "strategy" => map! {
                "type" => "RollingUpdate",
                "rollingUpdate" => map! { "maxUnavailable" => 0, "maxSurge" => 1 },
            },
            "selector" => selector(),
            "template" => map! { "metadata" => map! { "labels" => labels() }, "spec" => pod(install, address, joins) },
        },
    );
    deployment
}

fn selector() -> Node {
    map! { "matchLabels" => map! { "app.kubernetes.io/name" => AGENT } }
}

fn pod(install: &Install, address: &Address, joins: bool) -> Node {
    let mut pod = map! {
        "serviceAccountName" => AGENT,
        "automountServiceAccountToken" => true,
        "enableServiceLinks" => false,
        "terminationGracePeriodSeconds" => GRACE,
        "securityContext" => map! {
            "runAsNonRoot" => true,
            "runAsUser" => USER,
            "runAsGroup" => USER,
            "fsGroup" => USER,
            "seccompProfile" => map! { "type" => "RuntimeDefault" },
        },
        "containers" => list![container(install, address, joins)],
        "volumes" => list![map! {
            "name" => "certs",
            // 0440
            "secret" => map! { "secretName" => CERTIFICATES, "defaultMode" => 288 },
        }],
    };
    if !install.image_pull_secrets.is_empty() {
        let secrets = install.image_pull_secrets.iter().map(|name| map! { "name" => name.as_str() });
        pod.set("imagePullSecrets", Node::List(secrets.collect()));
    }
    if !install.node_selector.is_empty() {
        pod.set("nodeSelector", install.node_selector.clone().into());
    }
    if !install.tolerations.is_empty() {
        pod.set("tolerations", install.tolerations.clone().into());
    }
    if install.replicas > 1 {
        apart(&mut pod);
    }
    pod
}

/// On nodes and in zones apart, where there are several.
fn apart(pod: &mut Node) {
    let term = map! { "labelSelector" => selector(), "topologyKey" => "kubernetes.io/hostname" };
    let preferred = list![map! { "weight" => 100, "podAffinityTerm" => term }];
    pod.set(
        "affinity",
        map! { "podAntiAffinity" => map! { "preferredDuringSchedulingIgnoredDuringExecution" => preferred } },
    );
    pod.set(
        "topologySpreadConstraints",
        list![map! {
            "maxSkew" => 1,
            "topologyKey" => "topology.kubernetes.io/zone",
            "whenUnsatisfiable" => "ScheduleAnyway",
            "labelSelector" => selector(),
        }],
    );
}

fn container(install: &Install, address: &Address, joins: bool) -> Node {
    let probe = |path: &str, period: i32, failures: i32| {
        map! {
            "httpGet" => map! { "path" => path, "port" => "admin" },
            "periodSeconds" => period,
            "timeoutSeconds" => 3,
            "failureThreshold" => failures,
        }
    };
    let mut container = map! {
        "name" => "agent",
        "image" => install.image.as_str(),
        "imagePullPolicy" => "IfNotPresent",
        "args" => arguments(install, address, joins),
    };
    if let Some(proxy) = &install.proxy {
        let variable = match &proxy.secret {
            None => map! { "name" => "HTTPS_PROXY", "value" => proxy.url.as_str() },
            Some(secret) => {
                let key = map! { "name" => secret.as_str(), "key" => "HTTPS_PROXY" };
                map! { "name" => "HTTPS_PROXY", "valueFrom" => map! { "secretKeyRef" => key } }
            }
        };
        container.set("env", list![variable]);
    }
    let admin = map! { "name" => "admin", "containerPort" => ADMIN_PORT, "protocol" => "TCP" };
    let ports: Vec<Node> = std::iter::once(admin).chain(services::container_ports(install)).collect();
    container.set("ports", ports.into());
    // A restart cures no lost connection: only readiness depends on it.
    container.set("livenessProbe", probe("/livez", 10, 6));
    container.set("readinessProbe", probe("/readyz", 5, 2));
    container.set("resources", resources(install));
    container.set(
        "securityContext",
        map! {
            "allowPrivilegeEscalation" => false,
            "privileged" => false,
            "readOnlyRootFilesystem" => true,
            "capabilities" => map! { "drop" => list!["ALL"] },
        },
    );
    let mount = map! { "name" => "certs", "mountPath" => CERTS, "readOnly" => true };
    container.set("volumeMounts", list![mount]);
    container
}

/// No limit of CPU time: being throttled, the agent would delay every user's request.
fn resources(install: &Install) -> Node {
    let amounts = |pairs: &[(&str, &str)]| -> Node {
        let pairs: BTreeMap<String, String> =
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        pairs.into()
    };
    map! {
        "requests" => amounts(&[
            ("cpu", &install.cpu_request),
            ("memory", &install.memory_request),
            ("ephemeral-storage", "16Mi"),
        ]),
        // Of the node's disk it uses what its log lines take until kubelet rotates them.
        "limits" => amounts(&[("memory", &install.memory_limit), ("ephemeral-storage", "256Mi")]),
    }
}

/// What the agent is started with. Nothing secret: arguments are seen by everybody who may look at pods.
fn arguments(install: &Install, address: &Address, joins: bool) -> Node {
    let mut arguments = vec![
        format!("--management-cluster-connection={}", connection::NAME),
        format!("--identity-secret={}/{CERTIFICATES}", install.namespace),
        // Until there is a connection: its kind must be known to the kube-apiserver before kubectl can apply one.
        format!("--management-cluster-addr={address}"),
        "--log-format=json".to_owned(),
    ];
    if joins {
        // Looked at for as long as the Secret has no certificate.
        arguments.push(format!("--join-token-file={CERTS}/{JOIN_TOKEN}"));
    }
    if install.sessions > 1 {
        arguments.push(format!("--sessions={}", install.sessions));
    }
    arguments.extend(services::arguments(install));
    arguments.extend(install.acting.arguments.iter().cloned());
    arguments.into()
}

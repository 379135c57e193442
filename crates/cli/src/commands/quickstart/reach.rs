//! Waiting until a user's request goes all the way: gateway, tunnel, agent, kube-apiserver, and back.

use std::time::{Duration, Instant};

use http::StatusCode;
use moorline_api::paths;
use moorline_model::ClusterName;
use serde_json::{Value, json};

use super::plan::Managed;
use crate::{
    client::{CallError, Client},
    failure::Failure,
};

/// How long the first connection may take; on loopback it takes a fraction of a second.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks the managed cluster who is asking, until it answers. Returns the user name that arrived, and how long it took.
pub(super) async fn whoami(
    client: &Client,
    name: &ClusterName,
    managed: &Managed,
) -> Result<(String, Duration), Failure> {
    let path = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", paths::kubernetes(name));
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let begun = Instant::now();
    let mut tries = tokio::time::interval(PAUSE);
    loop {
        tries.tick().await;
        match client.post::<Value>(&path, &review).await {
            Ok(review) => {
                let user = review.pointer("/status/userInfo/username").and_then(Value::as_str).unwrap_or_default();
                return Ok((user.to_owned(), begun.elapsed()));
            }
            Err(CallError::Refused(status, _)) if is_not_yet(status) && begun.elapsed() < WITHIN => {}
            Err(CallError::Refused(StatusCode::FORBIDDEN, what)) if what.contains("impersonate") => {
                return Err(no_impersonation(&what, managed));
            }
            Err(error) => return Err(Failure::from(error).hint(too_late(managed))),
        }
    }
}

fn is_not_yet(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
}

fn no_impersonation(what: &str, managed: &Managed) -> Failure {
    let failure = Failure::failed(format!("the managed cluster does not let the agent act for its users: {what}"));
    match managed {
        Managed::Real { .. } => failure.hint(
            "the agent uses the credentials of --kubeconfig, which need the verb `impersonate` on users, groups and \
             serviceaccounts there; an administrator's credentials have it",
        ),
        Managed::Demo => failure,
    }
}

fn too_late(managed: &Managed) -> String {
    match managed {
        Managed::Real { kubeconfig, .. } => {
            format!("does `kubectl --kubeconfig {} version` work? --log info tells more", kubeconfig.display())
        }
        Managed::Demo => "--log info tells more".to_owned(),
    }
}

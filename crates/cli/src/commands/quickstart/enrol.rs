//! The quickstart's cluster and the files of its agent: found from the last start, or made.

use std::{collections::BTreeMap, fs, path::Path};

use http::StatusCode;
use moorline_api::{CreateCluster, CreatedCluster, paths};
use moorline_model::ClusterName;
use serde_json::Value;

use super::super::enrolment::Target;
use crate::{
    client::{CallError, Client},
    failure::Failure,
    printer::Printer,
};

/// How the cluster came to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    New,
    FromLastStart,
    /// The gateway knew it, but the agent's key was gone.
    Again,
}

/// Makes sure that the gateway knows the cluster and that `dir` holds the files of its agent.
pub(super) async fn ensure(client: &Client, name: &ClusterName, dir: &Path) -> Result<Came, Failure> {
    let known = match client.get::<Value>(&paths::cluster(name)).await {
        Ok(_cluster) => true,
        Err(CallError::Refused(StatusCode::NOT_FOUND, _)) => false,
        Err(error) => return Err(error.into()),
    };
    let complete = Target::is_complete(dir);
    if known && complete {
        return Ok(Came::FromLastStart);
    }
    if known {
        client.delete::<Value>(&paths::cluster(name)).await?;
    }
    // Whatever is there belongs to no cluster that the gateway knows.
    if dir.exists() {
        fs::remove_dir_all(dir)
            .map_err(|error| Failure::because(&format!("cannot remove the stale {}", dir.display()), &error))?;
    }
    let target = Target::directory(dir)?;
    let labels = BTreeMap::from([("moorline.io/quickstart".to_owned(), "true".to_owned())]);
    let cluster = CreateCluster { labels, ..CreateCluster::new(name.clone()) };
    let created: CreatedCluster = client.post(paths::CLUSTERS, &cluster).await?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    target.write(name, &created.enrolment, &mut Printer::new(&mut out, &mut err))?;
    Ok(if known { Came::Again } else { Came::New })
}

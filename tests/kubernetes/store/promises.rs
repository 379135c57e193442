//! Objects on a real kube-apiserver, held to the suite that the server holds its embedded store to; and records moved
//! from one store to the other by the `moorline` command line's own functions.

#[path = "../../../crates/server/src/clusters/store/promises.rs"]
mod suite;

use moorline_kube::{ClusterObject, ClusterObjects, Connection, ObjectError};
use moorline_model::{ClusterName, ClusterRecord};
use moorline_server::transfer::{Place, export, import};

use self::suite::{Keeper, Refusal, hold};
use super::*;

struct Objects(ClusterObjects);

fn refusal(error: ObjectError) -> Refusal {
    match error {
        ObjectError::Exists => Refusal::Exists,
        ObjectError::Gone => Refusal::Gone,
        ObjectError::Conflict => Refusal::Conflict,
        other @ (ObjectError::Unavailable(_) | ObjectError::Refused(_) | _) => {
            tracing::info!(%other, "the suite met something else");
            Refusal::Other
        }
    }
}

impl Keeper for Objects {
    type Kept = ClusterObject;

    async fn create(&self, record: ClusterRecord) -> Result<ClusterObject, Refusal> {
        self.0.create(&record).await.map_err(refusal)
    }

    async fn get(&self, name: &ClusterName) -> Option<ClusterObject> {
        self.0.get(name).await.unwrap()
    }

    async fn list(&self) -> Vec<ClusterObject> {
        self.0.list().await.unwrap()
    }

    async fn replace(&self, before: ClusterObject, after: ClusterRecord) -> Result<ClusterObject, Refusal> {
        self.0.replace(&before.record, &before.identified, &after).await.map_err(refusal)
    }

    async fn delete(&self, name: &ClusterName) -> Option<ClusterObject> {
        self.0.delete(name).await.unwrap()
    }

    fn record(kept: &ClusterObject) -> &ClusterRecord {
        assert!(kept.problems.is_empty(), "{:?}", kept.problems);
        &kept.record
    }
}

#[tokio::test]
async fn objects_keep_the_promises_of_every_store_and_records_move() {
    let Some(management) = Management::start("promises").await else { return };
    let connection = Connection::from_kubeconfig(&management.kubeconfig, DEADLINE).await.unwrap();
    hold(&Objects(ClusterObjects::new(connection))).await;

    // Out of Kubernetes into a file and back: the same clusters, down to the uid that agents' certificates name.
    let directory = tempfile::tempdir().unwrap();
    let [objects, file] =
        [Place::Kubernetes(Some(management.kubeconfig.clone())), Place::StateDir(directory.path().to_owned())];
    let records = export(&objects).await.unwrap();
    assert_eq!(records.items.len(), 2);
    assert_eq!(import(&file, &records, false).await.unwrap().created, 2);
    assert_eq!(export(&file).await.unwrap(), records);
    management.kubectl.ok(&["delete", "mcl", "--all"]).await;
    management.apply(&object("east", &json!({}))).await;
    let refused = import(&objects, &records, false).await.unwrap_err().to_string();
    assert_eq!(refused, "cluster east: it is there already, and says something else");
    let done = import(&objects, &records, true).await.unwrap();
    assert_eq!((done.created, done.replaced), (1, 1));
    assert_eq!(export(&objects).await.unwrap(), records);
}

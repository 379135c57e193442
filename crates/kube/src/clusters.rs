//! Clusters as `ManagedCluster` objects of the management cluster: made, read, changed, removed and followed.
//!
//! The server's store of clusters calls this. It decides nothing: what an object asks for and what the server must
//! remember becomes a [`ClusterRecord`], and changes of records become changes of objects, unless somebody else was
//! quicker. [`ClusterObjects::watch`] tells what others did; [`ClusterObjects::observe`] and [`ClusterObjects::tell`]
//! write what people see.

mod definition;
mod events;
mod object;
mod observed;
mod patch;
mod resource;
mod watch;

use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use moorline_model::{ClusterName, ClusterRecord};
use serde_json::Value;
use thiserror::Error;

pub use definition::managed_cluster_definition;
pub use events::Notice;
pub use object::{ClusterObject, Identified};
pub use observed::{Observed, ObservedCondition};
pub use watch::{Change, Seen};

use crate::{Connection, call::of_network};
use resource::ManagedCluster;

/// How this server is named as the one who changed an object.
const FIELD_MANAGER: &str = "moorline-server";

/// Objects in one answer: some kibibytes each.
const PAGE: u32 = 500;

/// The `ManagedCluster` objects of one management cluster. Each question has the time of its [`Connection`].
#[derive(Clone)]
pub struct ClusterObjects {
    connection: Connection,
    api: Api<ManagedCluster>,
}

/// Why something was not done with an object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// There is an object of this name.
    #[error("there is such an object already")]
    Exists,
    /// There is none, or another one of the same name.
    #[error("there is no such object any more")]
    Gone,
    /// It was changed since it was read.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// Nobody could be asked, or the kube-apiserver does not let us. Whether anything was written is not known.
    #[error("{0}")]
    Unavailable(String),
    /// The kube-apiserver does not take it.
    #[error("the kube-apiserver refuses it: {0}")]
    Refused(String),
}

impl ClusterObjects {
    /// The objects behind a connection. Nothing is asked yet.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        let api = Api::all(connection.client.clone());
        Self { connection, api }
    }

    /// Makes an object for a record. When its status cannot be written, it is removed again; where even that fails, it
    /// is a cluster without certificates, which can be enrolled.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn create(&self, record: &ClusterRecord) -> Result<ClusterObject, ObjectError> {
        let new = object::new(record);
        let made = self.call(self.api.create(&PostParams::default(), &new)).await?;
        let uid = made.metadata.uid.clone().unwrap_or_default();
        let status = patch::first_status(&uid, record);
        match self.patch_status(&record.name, &status).await {
            Ok(kept) => usable(&kept),
            Err(error) => {
                tracing::warn!(cluster = %record.name, %error, "a new object cannot get its status and is removed");
                if let Err(error) = self.remove(&record.name, &uid).await {
                    tracing::warn!(cluster = %record.name, %error, "it stays, as a cluster without certificates");
                }
                Err(error)
            }
        }
    }

    /// The object of a name, unless there is none or it is being deleted.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn get(&self, name: &ClusterName) -> Result<Option<ClusterObject>, ObjectError> {
        let found = self.call(self.api.get_opt(name.as_str())).await?;
        found.filter(|found| found.metadata.deletion_timestamp.is_none()).map(|found| usable(&found)).transpose()
    }

    /// All objects, by name, save those that are being deleted.
    ///
    /// # Errors
    /// [`ObjectError`]; [`ObjectError::Refused`] where one is no cluster.
    pub async fn list(&self) -> Result<Vec<ClusterObject>, ObjectError> {
        let mut found = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = self.call(self.api.list(&page)).await?;
            for object in listed.items.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
                let name = object.metadata.name.as_deref().unwrap_or_default();
                found.push(ClusterObject::read(object).map_err(|why| ObjectError::Refused(format!("{name}: {why}")))?);
            }
            match listed.metadata.continue_.filter(|rest| !rest.is_empty()) {
                Some(rest) => page.continue_token = Some(rest),
                None => return Ok(found),
            }
        }
    }

    /// Makes the object of `before` say what `after` says. What is asked for is written before what is remembered, each
    /// at once.
    ///
    /// # Errors
    /// [`ObjectError`]; with [`ObjectError::Conflict`] nothing was written, or what is asked for and no more.
    pub async fn replace(
        &self,
        before: &ClusterRecord,
        known: &Identified,
        after: &ClusterRecord,
    ) -> Result<ClusterObject, ObjectError> {
        let mut known = known.clone();
        let mut last = None;
        if let Some(patch) = patch::of_spec(&known, before, after) {
            let (parameters, patch) = (parameters(), Patch::Merge(&patch));
            let patched = self.call(self.api.patch(after.name.as_str(), &parameters, &patch)).await?;
            let patched = usable(&patched)?;
            known = patched.identified.clone();
            last = Some(patched);
        }
        if let Some(patch) = patch::of_status(&known, before, after) {
            last = Some(usable(&self.patch_status(&after.name, &patch).await?)?);
        }
        match last {
            Some(object) => Ok(object),
            // Nothing to write; whether it still is what was read is asked all the same.
            None => match self.get(&after.name).await?.ok_or(ObjectError::Gone)? {
                same if same.identified == known => Ok(same),
                _changed => Err(ObjectError::Conflict),
            },
        }
    }

    /// Deletes the object of a name, and gives back what it was.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn delete(&self, name: &ClusterName) -> Result<Option<ClusterObject>, ObjectError> {
        let Some(found) = self.get(name).await? else { return Ok(None) };
        match self.remove(name, &found.identified.uid).await {
            Ok(()) => Ok(Some(found)),
            Err(ObjectError::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what was observed into the status of the object that has this uid.
    ///
    /// # Errors
    /// [`ObjectError`]; [`ObjectError::Conflict`] where there is another object of the name.
    pub async fn observe(&self, name: &ClusterName, uid: &str, observed: &Observed) -> Result<(), ObjectError> {
        self.patch_status(name, &observed::patch(uid, observed)).await.map(drop)
    }

    async fn remove(&self, name: &ClusterName, uid: &str) -> Result<(), ObjectError> {
        let exactly = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams::default().preconditions(exactly);
        self.call(self.api.delete(name.as_str(), &parameters)).await.map(drop)
    }

    async fn patch_status(&self, name: &ClusterName, patch: &Value) -> Result<ManagedCluster, ObjectError> {
        self.call(self.api.patch_status(name.as_str(), &parameters(), &Patch::Merge(patch))).await
    }

    async fn call<T>(&self, asking: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ObjectError> {
        match tokio::time::timeout(self.connection.timeout, asking).await {
            Ok(answered) => answered.map_err(|error| failure(&error)),
            Err(_elapsed) => Err(ObjectError::Unavailable("the kube-apiserver does not answer in time".to_owned())),
        }
    }
}

impl std::fmt::Debug for ClusterObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterObjects").finish_non_exhaustive()
    }
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn usable(object: &ManagedCluster) -> Result<ClusterObject, ObjectError> {
    ClusterObject::read(object).map_err(ObjectError::Refused)
}

/// What a failed call means. Words of the network and of the kube-apiserver only: those of credential plugins may hold
/// what the plugin printed.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are of the way there, or of its end")]
fn failure(error: &kube::Error) -> ObjectError {
    match error {
        kube::Error::Api(status) => match (status.code, status.reason.as_str()) {
            (409, "AlreadyExists") => ObjectError::Exists,
            (409, _) => ObjectError::Conflict,
            (404, _) => ObjectError::Gone,
            (400 | 413 | 422, _) => ObjectError::Refused(status.message.clone()),
            (401 | 403, _) => ObjectError::Unavailable(format!("this server may not do that: {}", status.message)),
            (code, _) => ObjectError::Unavailable(format!("the kube-apiserver answered {code}: {}", status.message)),
        },
        kube::Error::SerdeError(_) => ObjectError::Unavailable("the kube-apiserver's answer cannot be read".to_owned()),
        other => ObjectError::Unavailable(of_network(other).map_or_else(
            || "our own credential cannot be read, or the plugin for it failed".to_owned(),
            |why| format!("the kube-apiserver cannot be reached: {why}"),
        )),
    }
}

//! An identity kept in a Secret of the managed cluster: read and replaced as a whole, by its version.
//!
//! The first time it is read from the directory in which the Secret is mounted. From then on the Secret itself counts:
//! kubelet brings a change into the mount a minute later, and what was there before must not come back meanwhile. Of two
//! replicas the one that is first to replace it wins; the other is told of the conflict, and takes over what is there
//! when it reads again. Its keys are the names of the directory's files.
//!
//! Whoever applies the manifest again puts its first certificate back, which the server may have retired long ago: an
//! older certificate of the same authorities is replaced by the one that was in its place.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{ADDRESS, CERTIFICATE, Directory, Files, Home, HomeError, KEY, Later, ROOTS};
use crate::{
    kubernetes::{CallError, Client, Metadata, Object},
    metrics::Metrics,
    serve::Chain,
};

/// The key of a join that was begun.
const PENDING: &str = ".joining.key";

/// An identity kept in a Secret.
pub(crate) struct Secret {
    object: Object,
    mounted: Directory,
    /// Known once the agent is built.
    door: OnceLock<(Client, Arc<Metrics>)>,
    /// What was last read or written; none as long as the Secret could not be read.
    known: Mutex<Option<Known>>,
    troubles: Mutex<Troubles>,
    /// What they say.
    trouble: watch::Sender<Option<String>>,
}

/// Why the Secret cannot be read or written. Each stands until the same goes well: what can be read may still not be
/// written. A write goes well together with the read before it.
#[derive(Default)]
struct Troubles {
    read: Option<String>,
    write: Option<String>,
}

/// What a Secret held at one version.
struct Known {
    version: String,
    files: Files,
}

/// A Secret, with whatever else it holds.
#[derive(Serialize, Deserialize)]
struct Kept {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Secret {
    /// Reads the directory until [`Secret::attach`] gives it a client.
    pub(crate) fn new(object: Object, mounted: Directory) -> Self {
        let trouble = watch::Sender::new(None);
        Self { object, mounted, door: OnceLock::new(), known: Mutex::default(), troubles: Mutex::default(), trouble }
    }

    /// Asks this client from now on. Once.
    pub(crate) fn attach(&self, client: Client, metrics: Arc<Metrics>) {
        // A second one would be the same.
        drop(self.door.set((client, metrics)));
    }

    /// Why the Secret cannot be read or written, as it changes.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    async fn read(&self) -> Result<Files, HomeError> {
        let Some((client, _)) = self.door.get() else { return self.mounted.load().await };
        let error = match client.get::<Kept>(&self.object).await.map_err(|error| self.failed("read", &error)) {
            Ok(kept) => match self.files(&kept) {
                Ok(files) => {
                    self.stands(|troubles| troubles.read = None);
                    return Ok(self.newer_of(kept.metadata.resource_version, files).await);
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.stands(|troubles| troubles.read = Some(error.to_string()));
        if self.known().is_some() {
            return Err(error);
        }
        self.mounted.load().await
    }

    /// What is there, unless it is older than what was there before, which then takes its place again.
    async fn newer_of(&self, version: String, files: Files) -> Files {
        let before = {
            let mut known = self.known();
            match known.as_mut() {
                Some(known) if known.version != version && older(&files, &known.files) => {
                    known.version = version;
                    Some(known.files.clone())
                }
                Some(known) if known.version == version => return files,
                _new => {
                    *known = Some(Known { version, files: files.clone() });
                    None
                }
            }
        };
        let Some(before) = before else {
            // Somebody else has written it: that a write of ours came too late is over with this.
            self.stands(|troubles| troubles.write = None);
            return files;
        };
        tracing::warn!(secret = %self.object, "an older certificate was put into the Secret: putting the newer one back");
        // What could not be put back is told, and tried again: what is there still differs from what is known.
        if self.replace(Some(&before)).await.is_err()
            && let Some(known) = self.known().as_mut()
        {
            known.version.clear();
        }
        before
    }

    /// Replaces the Secret, if it is the one that was read last. A dry run changes nothing.
    async fn replace(&self, files: Option<&Files>) -> Result<(), HomeError> {
        let replaced = self.try_replacing(files).await;
        self.stands(|troubles| match &replaced {
            Ok(()) => *troubles = Troubles::default(),
            Err(error) => troubles.write = Some(error.to_string()),
        });
        replaced
    }

    async fn try_replacing(&self, files: Option<&Files>) -> Result<(), HomeError> {
        let Some((client, _)) = self.door.get() else {
            return Err(HomeError::Other(format!("{}: not to be written yet", self.object)));
        };
        let mut kept: Kept = client.get(&self.object).await.map_err(|error| self.failed("read", &error))?;
        let Some(files) = files else {
            let written = client.try_update(&self.object, &kept).await;
            return written.map_err(|error| self.failed("write", &error));
        };
        if self.known().as_ref().is_some_and(|known| known.version != kept.metadata.resource_version) {
            return Err(HomeError::Other(format!("{}: somebody else has changed it meanwhile", self.object)));
        }
        for (name, text) in [(ROOTS, &files.roots_pem), (CERTIFICATE, &files.certificate_pem), (KEY, &files.key_pem)] {
            kept.data.insert(name.to_owned(), STANDARD.encode(text));
        }
        match &files.address {
            Some(address) => drop(kept.data.insert(ADDRESS.to_owned(), STANDARD.encode(address))),
            None => drop(kept.data.remove(ADDRESS)),
        }
        let written = client.update(&self.object, &kept).await.map_err(|error| self.failed("write", &error))?;
        *self.known() = Some(Known { version: written.metadata.resource_version, files: files.clone() });
        Ok(())
    }

    fn files(&self, kept: &Kept) -> Result<Files, HomeError> {
        let text = |name: &str| -> Result<Zeroizing<String>, HomeError> {
            let wrong = |what: &str| HomeError::Other(format!("{}: {name} {what}", self.object));
            let encoded = kept.data.get(name).ok_or_else(|| wrong("is missing"))?;
            let bytes = STANDARD.decode(encoded).map_err(|_no_base64| wrong("is not base64"))?;
            String::from_utf8(bytes).map(Zeroizing::new).map_err(|_no_text| wrong("is no text"))
        };
        let address = text(ADDRESS).ok().map(|address| address.trim().to_owned());
        let files = Files {
            roots_pem: text(ROOTS)?.to_string(),
            certificate_pem: text(CERTIFICATE)?.to_string(),
            key_pem: text(KEY)?,
            address: address.filter(|address| !address.is_empty()),
        };
        match files.check() {
            Ok(_good) => Ok(files),
            Err(reason) => Err(HomeError::Invalid { place: self.object.to_string(), reason }),
        }
    }

    async fn read_pending(&self) -> Result<Option<Zeroizing<String>>, HomeError> {
        let Some((client, _)) = self.door.get() else { return Ok(None) };
        let kept: Kept = client.get(&self.object).await.map_err(|error| self.failed("read", &error))?;
        let bytes = kept.data.get(PENDING).and_then(|encoded| STANDARD.decode(encoded).ok());
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map(Zeroizing::new))
    }

    async fn write_pending(&self, key: Option<&Zeroizing<String>>) -> Result<(), HomeError> {
        let Some((client, _)) = self.door.get() else { return Ok(()) };
        let mut kept: Kept = client.get(&self.object).await.map_err(|error| self.failed("read", &error))?;
        match key {
            Some(key) => drop(kept.data.insert(PENDING.to_owned(), STANDARD.encode(key.as_bytes()))),
            None if kept.data.remove(PENDING).is_none() => return Ok(()),
            None => {}
        }
        let written = client.update(&self.object, &kept).await.map_err(|error| self.failed("write", &error))?;
        // That change was ours, and the identity beside it is the same.
        if let Some(known) = self.known().as_mut() {
            known.version = written.metadata.resource_version;
        }
        Ok(())
    }

    fn failed(&self, what: &str, error: &CallError) -> HomeError {
        let remedy = if error.is_forbidden() {
            "; give the agent's service account get and update on it"
        } else if error.is_not_found() {
            "; create it, or leave out --identity-secret"
        } else {
            ""
        };
        HomeError::Other(format!("cannot {what} {}: {}{remedy}", self.object, Chain(error)))
    }

    fn stands(&self, change: impl FnOnce(&mut Troubles)) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut troubles);
        let trouble = troubles.read.as_ref().or(troubles.write.as_ref()).cloned();
        if let Some((_, metrics)) = self.door.get() {
            metrics.identity_kept(trouble.is_none());
        }
        self.trouble.send_if_modified(|before| {
            let news = *before != trouble;
            if let Some(text) = trouble.as_ref().filter(|_| news) {
                tracing::warn!("the identity Secret is of no use now; going on with the certificate in use: {text}");
            }
            *before = trouble;
            news
        });
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the one is an older certificate than the other, by the same authorities for the same cluster.
fn older(one: &Files, other: &Files) -> bool {
    if one.roots_pem != other.roots_pem {
        return false;
    }
    match (one.check(), other.check()) {
        (Ok((one, _)), Ok((other, _))) => {
            one.info().subject == other.info().subject && one.info().not_before < other.info().not_before
        }
        _useless => false,
    }
}

impl Home for Secret {
    fn load(&self) -> Later<'_, Files> {
        Box::pin(self.read())
    }

    fn save<'a>(&'a self, files: &'a Files) -> Later<'a, ()> {
        Box::pin(self.replace(Some(files)))
    }

    fn writable(&self) -> Later<'_, ()> {
        Box::pin(self.replace(None))
    }

    fn pending(&self) -> Later<'_, Option<Zeroizing<String>>> {
        Box::pin(self.read_pending())
    }

    fn keep_pending<'a>(&'a self, key: Option<&'a Zeroizing<String>>) -> Later<'a, ()> {
        Box::pin(self.write_pending(key))
    }

    fn place(&self) -> String {
        self.object.to_string()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("object", &self.object).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::SECRETS;

    #[test]
    fn a_trouble_stands_until_the_same_goes_well() {
        let object = Object::of_namespace(SECRETS, "moorline".parse().unwrap(), "certs".parse().unwrap());
        let secret = Secret::new(object, Directory::new("/nowhere"));
        let told = secret.trouble();
        let told = || told.borrow().clone().unwrap_or_default();
        secret.stands(|troubles| troubles.write = Some("not to be written".to_owned()));
        secret.stands(|troubles| troubles.read = Some("not to be read".to_owned()));
        assert_eq!(told(), "not to be read");
        secret.stands(|troubles| troubles.read = None);
        assert_eq!(told(), "not to be written", "and whoever reads it learns nothing about that");
        secret.stands(|troubles| *troubles = Troubles::default());
        assert_eq!(told(), "");
    }
}

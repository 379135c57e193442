//! Two authorities of the tunnel at once, in the state directory: the one that is being moved to and the one that is being
//! left, while agents go from one to the other.
//!
//! `tunnel-ca.crt` and `.key` are always one of them; the other is in the directory `tunnel-ca.overlap` beside, with a
//! plan that says which of the two stays. Each step is one rename or one file that is replaced whole, so whatever dies in
//! between finds the state before the step or after it; what a crash interrupted is completed by the next reader.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use moorline_ca::{Authority, Zeroizing};
use moorline_model::{Fingerprint, Timestamp};
use moorline_process::private_file::{private_dir, write_private};
use serde::{Deserialize, Serialize};

use super::{AUTHORITY_LIFE, StateDir, Which};
use crate::config::Problem;

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const PLAN: &str = "plan.json";

/// Which of two authorities stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stays {
    /// The one in `tunnel-ca.crt`: the other was imported, or a rotation is being undone.
    Present,
    /// The one beside it: the next.
    Other,
}

/// What is to become of two authorities.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    stays: Stays,
    started: Timestamp,
    /// The certificates of agents that the leaving authority signed, as far as they still count; none where whoever wrote
    /// this could not know, and it is everything that the store has.
    leaving: Option<Vec<Fingerprint>>,
    /// Nothing is left to wait for: the other one is to be put in place, or away.
    #[serde(default)]
    finishing: bool,
}

/// The tunnel's authorities.
pub(crate) struct TunnelAuthorities {
    /// Signs from now on.
    pub(crate) staying: Authority,
    /// Is believed as well, for now.
    pub(crate) leaving: Option<Leaving>,
}

/// An authority that is believed until everybody has left it.
pub(crate) struct Leaving {
    pub(crate) authority: Authority,
    pub(crate) stays: Stays,
    pub(crate) since: Timestamp,
    /// The certificates of agents that it signed; none where the store has to say.
    pub(crate) certificates: Option<Vec<Fingerprint>>,
}

impl StateDir {
    /// The tunnel's authorities, after completing what a crash interrupted. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(crate) fn tunnel_authorities(&self) -> Result<TunnelAuthorities, Problem> {
        self.complete()?;
        let present = self.authority(Which::Tunnel)?;
        let Some(plan) = self.plan()? else { return Ok(TunnelAuthorities { staying: present, leaving: None }) };
        let other = self.other()?;
        let (staying, authority) = match plan.stays {
            Stays::Present => (present, other),
            Stays::Other => (other, present),
        };
        let Plan { stays, started: since, leaving: certificates, .. } = plan;
        Ok(TunnelAuthorities { staying, leaving: Some(Leaving { authority, stays, since, certificates }) })
    }

    /// Makes the next authority; from now on it stays and the present one is being left. Blocks on the disk.
    ///
    /// # Errors
    /// Two are there already, or the disk.
    pub(crate) fn begin_rotation(&self, now: Timestamp, certificates: Vec<Fingerprint>) -> Result<(), Problem> {
        // A name of its own, so that people and error messages can tell one from the other.
        let name = format!("{} {now}", Which::Tunnel.common_name());
        let next = Authority::generate_for_server(&name, Some(crate::tunnel::SERVER_NAME), now, AUTHORITY_LIFE)
            .map_err(|error| Problem { at: name, what: error.to_string(), remedy: String::new() })?;
        let plan = Plan { stays: Stays::Other, started: now, leaving: Some(certificates), finishing: false };
        self.put_beside(&next, &plan)
    }

    /// Takes in an authority that this installation had before: agents that know only that one believe this server, and
    /// are believed, until they have a certificate of the present one. Blocks on the disk.
    ///
    /// # Errors
    /// The files are no authority, or are the present one, or two are there already, or the disk.
    pub fn import_previous(&self, certificate: &Path, key: &Path, now: Timestamp) -> Result<(), String> {
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        let key = Zeroizing::new(read(key)?);
        let previous = Authority::from_pem(&read(certificate)?, &key).map_err(|error| error.to_string())?;
        let told = |problem: Problem| problem.to_string();
        self.complete().map_err(told)?;
        let present = self.authority(Which::Tunnel).map_err(told)?;
        if present.info().public_key == previous.info().public_key {
            return Err("this is the authority that the state directory has already: nothing to import".to_owned());
        }
        let plan = Plan { stays: Stays::Present, started: now, leaving: None, finishing: false };
        self.put_beside(&previous, &plan).map_err(told)
    }

    /// Writes down which of two authorities stays, and which certificates the other one signed. Blocks on the disk.
    ///
    /// # Errors
    /// There are not two, or the disk.
    pub(crate) fn turn_rotation(&self, stays: Stays, certificates: Vec<Fingerprint>) -> Result<(), Problem> {
        let plan = self.plan()?.ok_or_else(|| self.wrong("holds no rotation"))?;
        self.write_plan(&self.overlap(), &Plan { stays, leaving: Some(certificates), ..plan })
    }

    /// Puts the one that stays in place, and the other one away for good. Blocks on the disk.
    ///
    /// # Errors
    /// There are not two, or the disk; it is completed by the next reader then.
    pub(crate) fn finish_rotation(&self) -> Result<(), Problem> {
        let plan = self.plan()?.ok_or_else(|| self.wrong("holds no rotation"))?;
        self.write_plan(&self.overlap(), &Plan { finishing: true, ..plan })?;
        self.complete()
    }

    /// What the files of the tunnel's authorities hold now, to see that somebody has changed them. Blocks on the disk.
    pub(crate) fn tunnel_authorities_hash(&self) -> Vec<Option<Fingerprint>> {
        let overlap = self.overlap();
        [self.certificate(Which::Tunnel), overlap.join(CERTIFICATE), overlap.join(PLAN)]
            .iter()
            .map(|path| fs::read(path).ok().map(|bytes| moorline_pki::fingerprint(&bytes)))
            .collect()
    }

    fn complete(&self) -> Result<(), Problem> {
        let (overlap, old) = (self.overlap(), self.path.join("tunnel-ca.overlap.old"));
        if old.exists() {
            fs::remove_dir_all(&old).map_err(|error| self.io(&old, &error))?;
        }
        let Some(plan) = self.plan()?.filter(|plan| plan.finishing) else { return Ok(()) };
        if plan.stays == Stays::Other {
            // The key first and then the certificate: both are there again at the next attempt, should this one die.
            for (from, to) in [(KEY, self.key(Which::Tunnel)), (CERTIFICATE, self.certificate(Which::Tunnel))] {
                let from = overlap.join(from);
                let bytes = Zeroizing::new(fs::read(&from).map_err(|error| self.io(&from, &error))?);
                write_private(&to, &bytes).map_err(|error| self.io(&to, &error))?;
            }
        }
        fs::rename(&overlap, &old).map_err(|error| self.io(&overlap, &error))?;
        fs::remove_dir_all(&old).map_err(|error| self.io(&old, &error))?;
        tracing::info!(directory = %self.path.display(), "the rotation of the tunnel's authority is complete");
        Ok(())
    }

    fn put_beside(&self, other: &Authority, plan: &Plan) -> Result<(), Problem> {
        let (overlap, new) = (self.overlap(), self.path.join("tunnel-ca.overlap.new"));
        if overlap.exists() {
            return Err(self.wrong("holds two authorities already: finish or abort that rotation first"));
        }
        let made = || -> io::Result<()> {
            if new.exists() {
                fs::remove_dir_all(&new)?;
            }
            private_dir(&new)?;
            write_private(&new.join(KEY), other.key_pem().as_bytes())?;
            write_private(&new.join(CERTIFICATE), other.certificate_pem().as_bytes())
        };
        made().map_err(|error| self.io(&new, &error))?;
        self.write_plan(&new, plan)?;
        let renamed = fs::rename(&new, &overlap).and_then(|()| fs::File::open(&self.path)?.sync_all());
        renamed.map_err(|error| self.io(&overlap, &error))
    }

    fn other(&self) -> Result<Authority, Problem> {
        let (certificate, key) = (self.overlap().join(CERTIFICATE), self.overlap().join(KEY));
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| self.io(path, &error));
        let pem = Zeroizing::new(read(&key)?);
        Authority::from_pem(&read(&certificate)?, &pem).map_err(|error| self.wrong(&error.to_string()))
    }

    fn plan(&self) -> Result<Option<Plan>, Problem> {
        let path = self.overlap().join(PLAN);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| self.wrong(&error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(&path, &error)),
        }
    }

    fn write_plan(&self, directory: &Path, plan: &Plan) -> Result<(), Problem> {
        let path = directory.join(PLAN);
        let bytes = serde_json::to_vec_pretty(plan).map_err(|error| self.wrong(&error.to_string()))?;
        write_private(&path, &bytes).map_err(|error| self.io(&path, &error))
    }

    fn wrong(&self, what: &str) -> Problem {
        Problem {
            at: self.overlap().display().to_string(),
            what: what.to_owned(),
            remedy: "restore the directory from a backup of the same moment as the rest".to_owned(),
        }
    }

    fn overlap(&self) -> PathBuf {
        self.path.join("tunnel-ca.overlap")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const GROUP: &str = "moorline.io";

    fn filled() -> (tempfile::TempDir, StateDir) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::new(directory.path());
        state.fill(GROUP, crate::clock::now()).unwrap();
        (directory, state)
    }

    fn key_of(authority: &Authority) -> Vec<u8> {
        authority.info().public_key.clone()
    }

    #[test]
    fn a_rotation_ends_with_the_next_and_an_undone_one_with_the_first() {
        let (_directory, state) = filled();
        let certificate = Fingerprint::from_bytes([1; 32]);
        let first = key_of(&state.tunnel_authorities().unwrap().staying);
        state.begin_rotation(crate::clock::now(), vec![certificate]).unwrap();
        assert!(state.begin_rotation(crate::clock::now(), Vec::new()).is_err(), "one at a time");
        let both = state.tunnel_authorities().unwrap();
        let (next, leaving) = (key_of(&both.staying), both.leaving.unwrap());
        assert_ne!(next, first);
        assert_eq!((key_of(&leaving.authority), leaving.stays), (first.clone(), Stays::Other));
        assert_eq!(leaving.certificates, Some(vec![certificate]));
        state.turn_rotation(Stays::Present, Vec::new()).unwrap();
        assert_eq!(key_of(&state.tunnel_authorities().unwrap().staying), first);
        state.turn_rotation(Stays::Other, Vec::new()).unwrap();
        state.finish_rotation().unwrap();
        let alone = state.tunnel_authorities().unwrap();
        assert_eq!(key_of(&alone.staying), next);
        assert!(alone.leaving.is_none());
        assert!(state.finish_rotation().is_err());
        state.fill(GROUP, crate::clock::now()).unwrap();
        assert_eq!(key_of(&state.tunnel_authorities().unwrap().staying), next);
    }

    /// Dies after each step of the end, on a copy of the directory as that step left it.
    #[test]
    fn f08_whatever_dies_in_between_the_end_is_completed() {
        let (directory, state) = filled();
        state.begin_rotation(crate::clock::now(), Vec::new()).unwrap();
        let next = key_of(&state.tunnel_authorities().unwrap().staying);
        let overlap = directory.path().join("tunnel-ca.overlap");
        let plan = state.plan().unwrap().unwrap();
        state.write_plan(&overlap, &Plan { finishing: true, ..plan }).unwrap();
        for step in 0..4 {
            let copy = tempfile::tempdir().unwrap();
            copy_all(directory.path(), copy.path());
            let put = |from: &str, to: &str| fs::copy(copy.path().join(from), copy.path().join(to)).unwrap();
            if step >= 1 {
                put("tunnel-ca.overlap/ca.key", "tunnel-ca.key");
            }
            if step >= 2 {
                put("tunnel-ca.overlap/ca.crt", "tunnel-ca.crt");
            }
            if step >= 3 {
                let old = copy.path().join("tunnel-ca.overlap.old");
                fs::rename(copy.path().join("tunnel-ca.overlap"), old).unwrap();
            }
            let died = StateDir::new(copy.path());
            died.fill(GROUP, crate::clock::now()).unwrap();
            let after = died.tunnel_authorities().unwrap();
            assert_eq!(key_of(&after.staying), next, "step {step}");
            assert!(after.leaving.is_none() && !copy.path().join("tunnel-ca.overlap.old").exists());
        }
        // And of the beginning: what was not given its name was never there.
        let (directory, state) = filled();
        fs::create_dir(directory.path().join("tunnel-ca.overlap.new")).unwrap();
        assert!(state.tunnel_authorities().unwrap().leaving.is_none());
        state.begin_rotation(crate::clock::now(), Vec::new()).unwrap();
        assert!(state.tunnel_authorities().unwrap().leaving.is_some());
    }

    #[test]
    fn an_authority_of_before_is_taken_in_beside_the_present_one() {
        let (_directory, state) = filled();
        let elsewhere = tempfile::tempdir().unwrap();
        let previous = Authority::generate("old", crate::clock::now(), Duration::from_secs(86_400)).unwrap();
        let (certificate, key) = (elsewhere.path().join("a.crt"), elsewhere.path().join("a.key"));
        fs::write(&certificate, previous.certificate_pem()).unwrap();
        fs::write(&key, &*previous.key_pem()).unwrap();
        let present = key_of(&state.tunnel_authorities().unwrap().staying);
        state.import_previous(&certificate, &key, crate::clock::now()).unwrap();
        let both = state.tunnel_authorities().unwrap();
        assert_eq!(key_of(&both.staying), present);
        let leaving = both.leaving.unwrap();
        assert_eq!((key_of(&leaving.authority), leaving.certificates), (key_of(&previous), None));
        assert!(state.import_previous(&certificate, &key, crate::clock::now()).unwrap_err().contains("already"));
        let own = (state.certificate(Which::Tunnel), state.key(Which::Tunnel));
        assert!(state.import_previous(&own.0, &own.1, crate::clock::now()).unwrap_err().contains("nothing to import"));
    }

    fn copy_all(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&target).unwrap();
                copy_all(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

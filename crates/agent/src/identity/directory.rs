//! An identity kept in a directory, as kubelet lays out mounted Secrets: the files' names are links into `..data`, which
//! is a link to one version of all of them. Switching that one link changes everything at once.
//!
//! A directory that a person filled with plain files is read as it is, also where they took the place of links. The next
//! time that something is kept in it, it becomes one of these, without a moment in which old and new are mixed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_process::private_file::{private_dir, write_private};
use zeroize::Zeroizing;

use super::{ADDRESS, CERTIFICATE, Files, Home, HomeError, KEY, Later, ROOTS};

/// The link to the version in use.
const DATA: &str = "..data";

/// The link that is renamed over it.
const NEXT: &str = "..data_tmp";

/// What names of versions of ours begin with. kubelet's begin with the year.
const VERSION: &str = "..moorline-";

/// The key of a join that was begun.
const PENDING: &str = ".joining.key";

/// How often reading is tried while somebody else may be writing the files one by one, and how long it rests.
const ATTEMPTS: u32 = 10;
const REST: Duration = Duration::from_millis(100);

/// An identity kept in a directory.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at `path`, whether it exists or not.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// What is kept. Blocks on the disk; for a second where what is there is of no use, since somebody may just be writing
    /// it: a file that is written in place is empty first and then half of itself, and fits the others when all are done.
    ///
    /// # Errors
    /// [`HomeError`], of the last attempt.
    pub fn load_blocking(&self) -> Result<Files, HomeError> {
        #[expect(clippy::disallowed_methods, reason = "a thread that blocks on files; nobody signals")]
        self.load_resting(|| std::thread::sleep(REST))
    }

    /// Keeps `files` instead. Blocks on the disk.
    ///
    /// # Errors
    /// [`HomeError`]; what was there before is then still what is read.
    pub fn save_blocking(&self, files: &Files) -> Result<(), HomeError> {
        self.checked_save(files).map_err(|error| HomeError::Write { path: self.path.clone(), error })
    }

    fn load_resting(&self, mut rest: impl FnMut()) -> Result<Files, HomeError> {
        for _attempt in 1..ATTEMPTS {
            match self.read_checked() {
                Err(error) if self.may_pass(&error) => rest(),
                done => return done,
            }
        }
        self.read_checked()
    }

    fn read_checked(&self) -> Result<Files, HomeError> {
        let files = self.read()?;
        match files.check() {
            Ok(_good) => Ok(files),
            Err(reason) => Err(HomeError::Invalid { place: self.path.display().to_string(), reason }),
        }
    }

    /// All files of the version that is in use now, or the plain ones.
    fn read(&self) -> Result<Files, HomeError> {
        let base = self.used().map_or_else(|| self.path.clone(), |version| self.path.join(version));
        let text = |name: &str| {
            let path = base.join(name);
            fs::read_to_string(&path).map_err(|error| HomeError::Read { path: self.path.join(name), error })
        };
        // Keys first, as people are told of them first.
        let key_pem = Zeroizing::new(text(KEY)?);
        let (certificate_pem, roots_pem) = (text(CERTIFICATE)?, text(ROOTS)?);
        let address = fs::read_to_string(base.join(ADDRESS)).ok().map(|text| text.trim().to_owned());
        Ok(Files { roots_pem, certificate_pem, key_pem, address: address.filter(|text| !text.is_empty()) })
    }

    /// The version in use. None where the names do not lead there, since somebody has put plain files in their place.
    fn used(&self) -> Option<PathBuf> {
        let is_plain = |name: &&str| fs::symlink_metadata(self.path.join(name)).is_ok_and(|found| !found.is_symlink());
        let version = fs::read_link(self.path.join(DATA)).ok()?;
        [ROOTS, CERTIFICATE, KEY].iter().find(|name| is_plain(name)).map_or(Some(version), |_plain| None)
    }

    /// One writer at a time, of this process or of another: to sweep takes away versions that nobody uses, such as one that
    /// somebody else is about to. A save goes on to its end also where nobody waits for it any more.
    fn alone(&self) -> io::Result<File> {
        fs::create_dir_all(&self.path)?;
        let directory = File::open(&self.path)?;
        match directory.lock() {
            // Some file systems know no locks: who keeps certificates there is to be the only one.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
            _held => Ok(directory),
        }
    }

    fn checked_save(&self, files: &Files) -> io::Result<()> {
        let _alone = self.alone()?;
        if self.used().is_none() {
            self.convert()?;
        }
        let before = self.used();
        let version = self.write_version(|directory| {
            let write = |name: &str, text: &str| write_private(&directory.join(name), text.as_bytes());
            write(ROOTS, &files.roots_pem)?;
            write(CERTIFICATE, &files.certificate_pem)?;
            write(KEY, &files.key_pem)?;
            files.address.as_deref().map_or(Ok(()), |address| write(ADDRESS, address))
        })?;
        // Before there is anything behind new ones: who is killed now leaves no version that only its own name leads to.
        let address = files.address.as_ref().map(|_| ADDRESS);
        for name in [ROOTS, CERTIFICATE, KEY].into_iter().chain(address) {
            self.link(name)?;
        }
        self.switch(&version)?;
        self.sweep(before.as_deref());
        Ok(())
    }

    /// Turns a directory of plain files into a linked one with the same contents. At each moment every name leads to
    /// what it led to before.
    fn convert(&self) -> io::Result<()> {
        let plain = [ROOTS, CERTIFICATE, KEY, ADDRESS].map(|name| (name, self.path.join(name)));
        if !plain.iter().any(|(_, path)| path.exists()) {
            return Ok(());
        }
        let version = self.write_version(|directory| {
            for (name, path) in plain.iter().filter(|(_, path)| path.exists()) {
                write_private(&directory.join(name), &Zeroizing::new(fs::read(path)?))?;
            }
            Ok(())
        })?;
        self.switch(&version)?;
        plain.iter().filter(|(_, path)| path.exists()).try_for_each(|(name, _)| self.link(name))?;
        sync(&self.path)
    }

    /// Makes a version directory, synced; nobody reads it yet.
    fn write_version(&self, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<String> {
        let name = format!("{VERSION}{:016x}", rand::random::<u64>());
        let directory = self.path.join(&name);
        private_dir(&directory)?;
        fill(&directory)?;
        sync(&directory)?;
        Ok(name)
    }

    /// The one moment in which everything changes.
    fn switch(&self, version: &str) -> io::Result<()> {
        let next = self.path.join(NEXT);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _gone => {}
        }
        symlink(version, &next)?;
        fs::rename(&next, self.path.join(DATA))?;
        sync(&self.path)
    }

    /// Makes a file's own name a link into the version in use, where it is not one yet.
    fn link(&self, name: &str) -> io::Result<()> {
        let (path, target) = (self.path.join(name), Path::new(DATA).join(name));
        if fs::read_link(&path).is_ok_and(|there| there == target) {
            return Ok(());
        }
        let beside = self.path.join(format!("{NEXT}.{name}"));
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _gone => {}
        }
        symlink(target, &beside)?;
        fs::rename(&beside, &path)
    }

    /// Takes away all versions but the one in use and the one before, which somebody may be reading; those of interrupted
    /// attempts included. What cannot be taken away only takes room.
    fn sweep(&self, before: Option<&Path>) {
        let used = fs::read_link(self.path.join(DATA)).ok();
        let kept = |name: &OsStr| [used.as_deref(), before].into_iter().flatten().any(|path| path.as_os_str() == name);
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(VERSION));
            if ours && !kept(&name) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }

    /// Whether it may be that somebody is just writing or replacing the files.
    fn may_pass(&self, error: &HomeError) -> bool {
        match error {
            HomeError::Invalid { .. } => true,
            // The version was taken away between two files.
            HomeError::Read { error, .. } => {
                error.kind() == io::ErrorKind::NotFound && self.path.join(DATA).is_symlink()
            }
            HomeError::Write { .. } | HomeError::Other(_) => false,
        }
    }

    fn try_writing(&self) -> io::Result<()> {
        let _alone = self.alone()?;
        let probe = self.write_version(|_empty| Ok(()))?;
        fs::remove_dir(self.path.join(probe))
    }
}

impl Home for Directory {
    fn load(&self) -> Later<'_, Files> {
        Box::pin(blocking(self, Self::load_blocking))
    }

    fn save<'a>(&'a self, files: &'a Files) -> Later<'a, ()> {
        let files = files.clone();
        Box::pin(blocking(self, move |home| home.save_blocking(&files)))
    }

    fn writable(&self) -> Later<'_, ()> {
        Box::pin(blocking(self, |home| {
            home.try_writing().map_err(|error| HomeError::Write { path: home.path.clone(), error })
        }))
    }

    fn pending(&self) -> Later<'_, Option<Zeroizing<String>>> {
        Box::pin(blocking(self, |home| {
            let path = home.path.join(PENDING);
            match fs::read_to_string(&path) {
                Ok(key) => Ok(Some(Zeroizing::new(key))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(HomeError::Read { path, error }),
            }
        }))
    }

    fn keep_pending<'a>(&'a self, key: Option<&'a Zeroizing<String>>) -> Later<'a, ()> {
        let key = key.cloned();
        Box::pin(blocking(self, move |home| {
            let path = home.path.join(PENDING);
            let done = match key {
                Some(key) => fs::create_dir_all(&home.path).and_then(|()| write_private(&path, key.as_bytes())),
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _gone => Ok(()),
                },
            };
            done.map_err(|error| HomeError::Write { path, error })
        }))
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

async fn blocking<T: Send + 'static>(
    home: &Directory,
    work: impl FnOnce(&Directory) -> Result<T, HomeError> + Send + 'static,
) -> Result<T, HomeError> {
    let home = home.clone();
    // It cannot panic; it is not run only where the runtime ends, and then nobody waits.
    let done = tokio::task::spawn_blocking(move || work(&home)).await;
    done.unwrap_or_else(|error| Err(HomeError::Other(error.to_string())))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
pub(super) mod tests;

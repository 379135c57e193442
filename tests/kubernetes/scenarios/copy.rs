//! `kubectl cp`.

use std::fs;

use moorline_testkit::kubernetes::PodSpec;
use rand::{Rng as _, SeedableRng as _};

use crate::stage::Stage;

/// How much is copied.
const SIZE: usize = 64 << 20;

/// 64 MiB into a container and out again arrive as they were.
pub(crate) async fn copy_64_mib(stage: &Stage) {
    stage.pod(PodSpec::idle("idle")).await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let mut content = vec![0; SIZE];
    rand::rngs::StdRng::seed_from_u64(64).fill_bytes(&mut content);
    fs::write(at("sent"), &content).unwrap();

    // The container's file system is this machine's: other names keep the copies apart.
    stage.kube.ok(&["cp", &at("sent"), &format!("idle:{}", at("inside"))]).await;
    assert!(fs::read(at("inside")).unwrap() == content, "the upload differs");
    stage.kube.ok(&["cp", &format!("idle:{}", at("inside")), &at("returned")]).await;
    assert!(fs::read(at("returned")).unwrap() == content, "the download differs");
}

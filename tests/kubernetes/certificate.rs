//! Some scenarios with callers that the gateway knows by client certificates instead of tokens.

use std::path::Path;
use std::time::{Duration, SystemTime};

use moorline_ca::Authority;
use moorline_model::Timestamp;
use moorline_testkit::kubernetes::{ClientCertificate, Credential, Kubectl};

use crate::stage::{Caller, Stage};
use crate::tunnel::{House, NAMES, POWERLESS, POWERLESS_GROUPS, caller, house};

/// One who may do everything in the clusters, and has no token.
pub(crate) const CAROL: &str = "carol";

/// For as long as the tests take.
const LIFE: Duration = Duration::from_secs(3_600);

async fn stage(version: Kubectl) -> Option<Stage> {
    let house = house().await?;
    let number = usize::from(version == Kubectl::New);
    let [carol, powerless] = [CAROL, POWERLESS.1].map(|user| certified(house, NAMES[number], user));
    Stage::set(house.clusters[number], version, &carol, &powerless).await
}

fn certified(house: &House, name: &str, user: &str) -> Caller {
    let certificate = issue(house.server.directory(), user);
    let kubeconfig = house.kubeconfig_with(name, user, &Credential::Certificate(&certificate));
    caller(kubeconfig, &format!("/clusters/{name}"), user, &POWERLESS_GROUPS)
}

fn issue(state: &Path, user: &str) -> ClientCertificate {
    let read = |file: &str| std::fs::read_to_string(state.join(file)).unwrap();
    let key = moorline_ca::Zeroizing::new(read("user-ca.key"));
    let authority = Authority::from_pem(&read("user-ca.crt"), &key).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let now = Timestamp::from_unix_seconds(i64::try_from(now).unwrap());
    let issued = authority.issue_user(user, &["developers".to_owned()], now, LIFE).unwrap();
    ClientCertificate { certificate_pem: issued.certificate_pem, key_pem: issued.key_pem.to_string() }
}

mod old {
    crate::scenarios::play!(crate::certificate::stage, Old,
        objects: get; identity: whoami, forbidden; exec: exec; logs: logs;);
}

mod new {
    crate::scenarios::play!(crate::certificate::stage, New,
        objects: get, watch; identity: whoami, forbidden; exec: exec; logs: logs;);
}

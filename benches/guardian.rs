//! Clusters whose agent is Calico's Guardian: the real program, and the stand-in of the interop tests.
//!
//! Called by `through_the_house`. Says which of them are there. The real one's ports are fixed, so it lives in a network
//! namespace, and its bytes cross two relays of the testkit in the process of the callers; and it refuses an origin without
//! TLS. It pays for both.

use anyhow::{Context as _, Result};
use moorline_testkit::guardian::{Real, Settings, StandIn, connected, enrol};
use tempfile::TempDir;

use crate::parts::{Origin, ServerProcess, say};

/// A running one with its files.
pub(crate) struct Guardian {
    _program: Program,
    _files: TempDir,
}

#[expect(dead_code, reason = "they end when dropped")]
enum Program {
    Real(Real),
    StandIn(StandIn),
}

impl Guardian {
    /// The real one, for a cluster of that name, once requests get through; none where it or its namespaces are not.
    ///
    /// # Errors
    /// When it is there and does not work.
    pub(crate) async fn real(server: &ServerProcess, origin: &Origin, cluster: &str) -> Result<Option<Self>> {
        let Some(tools) = Real::possible_or_skip() else {
            say("guardian: the real program is not here, and is left out");
            return Ok(None);
        };
        let (files, mut settings) = enrolled(server, origin, cluster).await?;
        settings.kube_apiserver = format!("https://{}", origin.tls);
        std::fs::write(files.path().join("ca.crt"), &origin.authority)?;
        let real = Real::start(&tools, &settings)?;
        connected(&server.user()?, cluster).await.with_context(|| real.log())?;
        say("guardian: the real program; its bytes cross two relays more, and TLS in front of the origin");
        Ok(Some(Self { _program: Program::Real(real), _files: files }))
    }

    /// The stand-in, the same way; none without Go.
    ///
    /// # Errors
    /// When it does not work.
    pub(crate) async fn stand_in(server: &ServerProcess, origin: &Origin, cluster: &str) -> Result<Option<Self>> {
        let (files, settings) = enrolled(server, origin, cluster).await?;
        let Some(program) = StandIn::start_or_skip(&settings).await? else {
            say("stand-in: there is no Go to build Guardian's stand-in with, and it is left out");
            return Ok(None);
        };
        connected(&server.user()?, cluster).await?;
        say("stand-in: for Guardian, of the same Go libraries, without relays");
        Ok(Some(Self { _program: Program::StandIn(program), _files: files }))
    }
}

async fn enrolled(server: &ServerProcess, origin: &Origin, cluster: &str) -> Result<(TempDir, Settings)> {
    let files = tempfile::tempdir()?;
    enrol(&server.user()?, cluster, files.path()).await?;
    let settings = Settings::new(server.tunnel, files.path(), &origin.url());
    Ok((files, settings))
}

//! The program `moorline-server`: reads its flags, sets up logs, builds the server, runs it until it is told to stop.

use std::process::ExitCode;

use clap::Parser;
use moorline_process::{logs, signals};
use moorline_server::{App, Config, RawConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The tunnel server of Moorline: users in front, agents behind.
#[derive(Parser)]
#[command(name = "moorline-server", version, about)]
struct Arguments {
    #[command(flatten)]
    config: RawConfig,

    /// Shape of the log lines on standard error: text or json
    #[arg(long, value_name = "FORMAT", env = "MOORLINE_LOG_FORMAT", default_value = "text")]
    log_format: logs::Format,

    /// What is logged: a level, or directives such as info,moorline_server=debug
    #[arg(long, value_name = "FILTER", env = "MOORLINE_LOG", default_value = logs::DEFAULT_FILTER)]
    log: String,
}

/// The exit code of a configuration that cannot be used.
const MISCONFIGURED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            #[expect(clippy::print_stderr, reason = "what is wrong with the flags is told before or beside any log")]
            {
                eprintln!("{text}");
            }
            ExitCode::from(code)
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), (u8, String)> {
    let config = Config::resolve(arguments.config).map_err(|problems| (MISCONFIGURED, problems.to_string()));
    let filter = logs::check_filter(&arguments.log).map_err(|error| (MISCONFIGURED, format!("--log: {error}")));
    let config = match (config, filter) {
        (Ok(config), Ok(())) => config,
        (Err((code, one)), Err((_, other))) => return Err((code, format!("{one}\n{other}"))),
        (Err(wrong), Ok(())) | (Ok(_), Err(wrong)) => return Err(wrong),
    };
    logs::init(arguments.log_format, &arguments.log).map_err(|error| (1, error.to_string()))?;
    let terminated = signals::terminated().map_err(|error| (1, format!("cannot catch signals: {error}")))?;
    let app = App::build(config).await.map_err(|error| (error.exit_code(), error.to_string()))?;
    let outcome = app.run(terminated).await;
    tracing::info!(cut = outcome.cut, "stopped");
    Ok(())
}

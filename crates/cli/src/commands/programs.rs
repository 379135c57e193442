//! `moorline server` and `moorline agent`: the two programs, for those who would rather carry one.

use moorline_process::{logs, signals};

use crate::{
    args::{AgentArgs, LogArgs, ServerArgs},
    failure::Failure,
};

pub(super) async fn server(args: ServerArgs) -> Result<(), Failure> {
    init(&args.log)?;
    let config = moorline_server::Config::resolve(args.config)
        .map_err(|problems| Failure::bad_input(problems.0.iter().map(ToString::to_string)))?;
    let terminated = terminated()?;
    let app = moorline_server::App::build(config).await.map_err(|error| Failure::because("the server", &error))?;
    app.run(terminated).await.map_err(|error| Failure::because("the server", &error))
}

pub(super) async fn agent(args: AgentArgs) -> Result<(), Failure> {
    init(&args.log)?;
    let config = moorline_agent::Config::from_raw(&args.config)
        .map_err(|error| Failure::bad_input(error.problems().iter().map(ToString::to_string)))?;
    let terminated = terminated()?;
    let app = moorline_agent::App::build(config).map_err(|error| Failure::because("the agent", &error))?;
    app.run(terminated).await.map_err(|error| Failure::because("the agent", &error))
}

fn init(log: &LogArgs) -> Result<(), Failure> {
    logs::init(log.log_format, &log.log).map_err(|error| Failure::bad_input([format!("--log: {error}")]))
}

fn terminated() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    signals::terminated().map_err(|error| Failure::because("cannot wait for signals", &error))
}

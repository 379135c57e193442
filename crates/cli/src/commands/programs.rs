//! `moorline server` and `moorline agent`: the two programs, for those who would rather carry one.

use moorline_agent::{
    App, Config,
    join::{self, Join, JoinError, StartError},
};
use moorline_process::{logs, signals};
use moorline_server::AppError;

use crate::{
    args::{AgentArgs, AgentDoctorArgs, LogArgs, ServerArgs},
    failure::{Failure, chain},
    printer::{Format, Printer},
};

pub(super) async fn server(args: ServerArgs) -> Result<(), Failure> {
    init(&args.log)?;
    let terminated = terminated()?;
    let app = build_server(args.config).await?;
    // What was cut is in the log; the exit code is that of a server that ended as it was told to.
    let _outcome = app.run(terminated).await;
    Ok(())
}

pub(super) async fn agent(args: AgentArgs) -> Result<(), Failure> {
    init(&args.log)?;
    let identity = join::at_start(&args.config).await.map_err(|error| match error {
        StartError::Config(error) => Failure::bad_input(error.problems().iter().map(ToString::to_string)),
        StartError::Join(error) => not_joined(&error),
    })?;
    let terminated = terminated()?;
    let config = Config::starting_with(&args.config, identity);
    let config = config.map_err(|error| Failure::bad_input(error.problems().iter().map(ToString::to_string)))?;
    let app = App::build(config).map_err(|error| Failure::because("the agent", &error))?;
    app.run(terminated).await.map_err(|error| Failure::because("the agent", &error))
}

pub(super) async fn agent_doctor(args: &AgentDoctorArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let report = moorline_agent::doctor::examine(&args.config).await;
    match args.output {
        None => printer.text(&report.to_string())?,
        Some(Format::Json) => printer.json(&report)?,
        Some(Format::Yaml) => printer.yaml(&report)?,
        Some(Format::Wide | Format::Name) => {
            return Err(Failure::bad_input(["--output: findings are printed as text, json or yaml".to_owned()]));
        }
    }
    if report.failed() {
        Err(Failure::failed("something that the agent needs does not work".to_owned()))
    } else {
        Ok(())
    }
}

/// Gets the certificate of an agent.
pub(super) async fn join(raw: &moorline_agent::RawJoin, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let all = |error: moorline_agent::ConfigError| {
        Failure::bad_input(error.problems().iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let joined = Join::from_raw(raw).map_err(all)?.run().await.map_err(|error| not_joined(&error))?;
    printer.line(&joined.to_string())
}

fn not_joined(error: &JoinError) -> Failure {
    let remedy = error.remedy();
    let failure = Failure::failed(chain(error));
    if remedy.is_empty() { failure } else { failure.hint(remedy) }
}

/// A server whose sockets are bound.
pub(super) async fn build_server(raw: moorline_server::RawConfig) -> Result<moorline_server::App, Failure> {
    let all = |problems: &moorline_server::Problems| {
        Failure::bad_input(problems.0.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let config = moorline_server::Config::resolve(raw).map_err(|problems| all(&problems))?;
    moorline_server::App::build(config).await.map_err(|error| {
        if let AppError::Problems(problems) = &error {
            return all(problems);
        }
        // A store that is in use or damaged is for the operator to mend, as a wrong flag is.
        let is_bad_input = error.exit_code() == 2;
        if is_bad_input { Failure::bad_input([chain(&error)]) } else { Failure::failed(chain(&error)) }
    })
}

/// An agent whose sockets are bound.
pub(super) fn build_agent(raw: &moorline_agent::RawConfig) -> Result<App, Failure> {
    let config =
        Config::from_raw(raw).map_err(|error| Failure::bad_input(error.problems().iter().map(ToString::to_string)))?;
    App::build(config).map_err(|error| Failure::because("the agent", &error))
}

fn init(log: &LogArgs) -> Result<(), Failure> {
    logs::init(log.log_format, &log.log).map_err(|error| Failure::bad_input([format!("--log: {error}")]))
}

fn terminated() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    signals::terminated().map_err(|error| Failure::because("cannot wait for signals", &error))
}

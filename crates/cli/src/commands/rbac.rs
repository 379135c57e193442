//! `moorline agent rbac`: the roles that an agent needs, to be applied in its cluster.

use moorline_agent::ActingFlags;
use moorline_manifest::rbac::{Constrained, Rendered, Wanted};
use serde_json::json;

use crate::{
    args::RbacArgs,
    failure::Failure,
    printer::{Format, Printer},
};

pub(super) fn run(args: RbacArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let account = args.service_account.split_once('/').filter(|(namespace, name)| {
        [namespace, name].iter().all(|part| !part.is_empty() && !part.contains(['/', ':']))
    });
    let account = account.ok_or_else(|| {
        Failure::bad_input([format!("--service-account: {:?} is not NAMESPACE/NAME", args.service_account)])
    })?;
    let wanted = Wanted {
        name: args.role_name,
        service_account: (account.0.to_owned(), account.1.to_owned()),
        constrained: args.constrained.then_some(Constrained { verbs: args.verbs, resources: args.resources }),
    };
    let rendered = render(&args.config.acting, &wanted)?;
    for remark in &rendered.remarks {
        printer.note(&format!("note: {remark}"));
    }
    match args.output {
        Some(Format::Json) => printer.json(&json!({"apiVersion": "v1", "kind": "List", "items": rendered.objects})),
        Some(Format::Yaml) | None => rendered.objects.iter().enumerate().try_for_each(|(index, object)| {
            if index > 0 {
                printer.line("---")?;
            }
            printer.yaml(object)
        }),
        Some(Format::Wide | Format::Name) => {
            Err(Failure::bad_input(["--output: roles are printed as yaml or json".to_owned()]))
        }
    }
}

fn render(flags: &ActingFlags, wanted: &Wanted) -> Result<Rendered, Failure> {
    let narrowing =
        flags.narrowing().map_err(|error| Failure::bad_input(error.problems().iter().map(ToString::to_string)))?;
    moorline_manifest::rbac::render(&narrowing, wanted)
        .map_err(|problems| Failure::bad_input(problems.iter().map(ToString::to_string)))
}

#[cfg(test)]
mod tests;

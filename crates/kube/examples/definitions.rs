//! Prints the custom resource definitions of this crate's kinds as YAML. Run by `cargo xtask generate`.
#![expect(clippy::print_stdout, reason = "printing is its purpose")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", serde_saphyr::to_string(&moorline_kube::managed_cluster_definition())?);
    Ok(())
}

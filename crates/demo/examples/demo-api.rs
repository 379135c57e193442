//! The demo API on its own, to point a kubectl at directly: prints its address and serves until Ctrl-C.
//!
//! `cargo run -p moorline-demo --example demo-api`, then `kubectl -s http://ADDRESS --as somebody get pods`.

#![expect(clippy::print_stdout, reason = "an example that tells its address")]

use moorline_demo::{Demo, DemoError};

#[tokio::main]
async fn main() -> Result<(), DemoError> {
    let demo = Demo::bind().await?;
    println!("http://{}", demo.addr());
    demo.run(async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}

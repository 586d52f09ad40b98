//! Says where the web app is, and when it has to be embedded again.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Without `..`: a debug build, which reads the folder when it serves, compares names.
    let frontend = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../frontend");
    let dist = frontend.canonicalize().unwrap_or(frontend).join("dist");
    println!("cargo:rustc-env=STARLING_WEB_APP={}", dist.display());
    // Other builds embed it. A folder that is missing counts as changed: it is looked for
    // again at the next build.
    if std::env::var("PROFILE").is_ok_and(|profile| profile != "debug") {
        println!("cargo:rerun-if-changed={}", dist.display());
    }
}

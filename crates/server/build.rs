//! Makes sure that the folder of the built page exists, so that the server builds without Node, and builds again when
//! the page has changed.

fn main() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../web/dist");
    // Where it cannot be made (a read-only source tree), nothing is embedded, which is all the folder is for.
    let _ = std::fs::create_dir_all(page);
    println!("cargo:rerun-if-changed=../../web/dist");
}

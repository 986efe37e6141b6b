//! Lists the plans that the program carries.

fn main() -> std::io::Result<()> {
    bundle::toml_files("../../recipes/ablation", "plans")
}

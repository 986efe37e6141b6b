//! Lists the recipes that the program carries.

fn main() -> std::io::Result<()> {
    bundle::toml_files("../../recipes", "recipes")
}

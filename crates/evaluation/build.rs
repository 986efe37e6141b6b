//! Lists the protocols that the program carries.

fn main() -> std::io::Result<()> {
    bundle::toml_files("../../protocols", "protocols")
}

//! Judges the recording on its input.

use std::io::{Read as _, Write as _};

fn main() -> anyhow::Result<()> {
    let mut recording = String::new();
    std::io::stdin().read_to_string(&mut recording)?;
    std::io::stdout().write_all(wingbeat_wasm_judge::judged(&recording)?.as_bytes())?;
    Ok(())
}

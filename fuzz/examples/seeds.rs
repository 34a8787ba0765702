//! Writes the inputs that each target begins with below a folder.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let below = PathBuf::from(std::env::args_os().nth(1).expect("a folder is wanted"));
    for target in negbank::fuzzing::TARGETS {
        let folder = below.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

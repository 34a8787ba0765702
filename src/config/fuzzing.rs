//! The settings' file, for fuzzers.

use std::path::PathBuf;

use super::{Settings, Sources};

/// A settings file: what is accepted is kept within its bounds, and `negbank config` prints what loads as the same.
pub(crate) fn settings(bytes: &[u8]) {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let file = place.join(format!("negbank-fuzzing-{}-{:?}.toml", std::process::id(), std::thread::current().id()));
    if std::fs::write(&file, bytes).is_err() {
        return;
    }
    let loaded = Settings::explain(&Sources { file: Some(file.clone()), ..Sources::default() });
    let _left = std::fs::remove_file(file);
    let Ok((settings, effective)) = loaded else { return };
    assert!(settings.server.listen.is_some() || settings.server.unix_socket.is_some());
    assert!((1..=crate::grpc::Limits::LARGEST_DIM).contains(&settings.limits.max_dim));
    let flags = effective.iter().map(|setting| format!("{}={}", setting.key, setting.value)).collect();
    let again = Settings::load(&Sources { flags, ..Sources::default() });
    assert_eq!(again.as_ref(), Ok(&settings), "what is printed is what is in force");
}

/// Files of all kinds of settings.
pub(crate) fn files() -> Vec<Vec<u8>> {
    let all = Settings::explain(&Sources::default()).map(|(_, effective)| effective).unwrap_or_default();
    let line = |key: &str, value: &str| match value.parse::<i64>().is_ok() || value == "true" || value == "false" {
        true => format!("{key} = {value}\n"),
        false => format!("{key} = \"{value}\"\n"),
    };
    let defaults: String = all.iter().map(|setting| line(&setting.key, &setting.value)).collect();
    let tables = "[limits]\nmax_k = 10\n[server]\nlisten = \"[::1]:9\"\n[log]\nformat = \"json\"\nfilter = \"negbank=debug\"\n";
    let kept =
        "[durability]\ndir = \"/data\"\npolicy = \"always\"\ninterval_ms = 100\n[checkpoints]\nlocation = \"s3://b/p\"\n";
    vec![defaults.into(), tables.into(), kept.into()]
}

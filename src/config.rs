//! Loading: settings from a TOML file, overridden by the environment, overridden by flags. What each setting means stands
//! with the part that owns it.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod keeping;
mod listening;
mod meanings;
mod memory;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use config::builder::DefaultState;
use config::{ConfigBuilder, Environment, File, FileFormat, Source as _, Value, ValueKind};
use serde::Deserialize;

pub use crate::grpc::{Role, TokenEntry, fingerprint};
use crate::{engine, grpc, telemetry};

/// Every part's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `server.*`, `tls.*`, `auth.*`
    pub server: grpc::Config,
    /// `limits.*`
    pub limits: grpc::Limits,
    /// `compute.*`, `memory.*`, `index.*`, `gather.*`, `durability.*`, `checkpoints.*`, and `limits.max_banks`
    pub engine: engine::Config,
    /// `log.*`
    pub log: telemetry::Config,
    /// `traces.*`
    pub traces: telemetry::TracesConfig,
    /// `http.*`
    pub http: telemetry::HttpConfig,
}

/// Where settings come from, the weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The environment: `NEGBANK__SERVER__LISTEN` is `server.listen`.
    pub environment: HashMap<String, String>,
    /// `key=value`
    pub flags: Vec<String>,
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings are wrong:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for Problems {}

impl Settings {
    /// Loads the settings; what no source gives has its default.
    ///
    /// # Errors
    /// [`Problems`]: all of them at once.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        Self::explain(sources).map(|(settings, _)| settings)
    }

    /// Loads the settings, and tells of each where it comes from, in the order of their keys.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn explain(sources: &Sources) -> Result<(Self, Vec<Effective>), Problems> {
        let mut reader = Reader::new(sources);
        let mut settings = Self::default();
        reader.server(&mut settings.server);
        reader.security(&mut settings.server);
        reader.limits(&mut settings.limits);
        reader.compute(&mut settings.engine);
        (settings.engine.max_dim, settings.engine.max_entries) = (settings.limits.max_dim, settings.limits.max_entries);
        reader.memory(&mut settings.engine.memory);
        reader.index(&mut settings.engine.index);
        reader.gather(&mut settings.engine.gather);
        reader.durability(&mut settings.engine.durability);
        reader.checkpoints(&mut settings.engine.checkpoints);
        reader.log(&mut settings.log);
        reader.traces(&mut settings.traces);
        reader.address("http.listen", &mut settings.http.listen, "127.0.0.1:7701");
        reader.take("http.insecure_listen", &mut settings.http.insecure_listen, |_| true, "true or false");
        settings.engine.measured = settings.http.listen.is_some();
        reader.finish().map(|effective| (settings, effective))
    }
}

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effective {
    /// Its key, such as `limits.max_k`.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What gave it: `default`, a file, the environment or a flag.
    pub origin: String,
    /// What it means, in a line.
    pub meaning: &'static str,
}

/// Takes settings one by one and gathers what is wrong with them.
struct Reader {
    /// Given settings that nobody has asked for yet, by key.
    given: BTreeMap<String, Value>,
    effective: Vec<Effective>,
    problems: Vec<String>,
}

/// The value that turns a listener off.
const NONE: &str = "none";

const PERCENT: RangeInclusive<usize> = 1..=100;
const THREADS: RangeInclusive<usize> = 0..=1_024;
const SECONDS: RangeInclusive<u64> = 1..=86_400;
const MESSAGE_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 30;
const METADATA_BYTES: RangeInclusive<usize> = 4 << 10..=1 << 20;
const INBOUND_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 40;
const COUNT: RangeInclusive<usize> = 1..=u32::MAX as usize;

impl Reader {
    fn new(sources: &Sources) -> Self {
        let mut problems = Vec::new();
        let environment = Environment::with_prefix("NEGBANK").prefix_separator("__").separator("__");
        let mut builder: ConfigBuilder<DefaultState> = config::Config::builder();
        if let Some(file) = &sources.file {
            builder = builder.add_source(File::from(file.as_path()).format(FileFormat::Toml));
        }
        builder = builder.add_source(environment.source(Some(sources.environment.clone())));
        for flag in &sources.flags {
            let Some((key, value)) = flag.split_once('=') else {
                problems.push(format!("--set {flag}: key=value is wanted, as in --set limits.max_k=1024"));
                continue;
            };
            builder = match builder.clone().set_override(key, value) {
                Ok(builder) => builder,
                Err(fault) => {
                    problems.push(format!("--set {flag}: {fault}"));
                    builder
                }
            };
        }
        let mut given = BTreeMap::new();
        match builder.build().and_then(|built| built.collect()) {
            Ok(tables) => tables.into_iter().for_each(|(key, value)| flatten(key, value, &mut given)),
            Err(fault) => problems.push(fault.to_string()),
        }
        Self { given, effective: Vec::new(), problems }
    }

    /// An address to listen on, or `none`.
    fn address(&mut self, key: &str, setting: &mut Option<SocketAddr>, example: &str) {
        let mut listen = setting.map_or_else(|| NONE.to_owned(), |address| address.to_string());
        self.take(key, &mut listen, |_| true, "a string");
        match listen.parse::<SocketAddr>() {
            Ok(address) => *setting = Some(address),
            Err(_) if listen == NONE => *setting = None,
            Err(_) => self
                .problems
                .push(format!("{key}: {listen:?} is not an address and port, as in {example} (no host name), nor none")),
        }
    }

    /// A path, or `none`, which is the default.
    fn path(&mut self, key: &str, wanted: &str) -> Option<PathBuf> {
        let mut path = NONE.to_owned();
        self.take(key, &mut path, |given| !given.is_empty(), &format!("{wanted}, or none"));
        (path != NONE).then(|| PathBuf::from(path))
    }

    fn limits(&mut self, limits: &mut grpc::Limits) {
        self.within("limits.max_dim", &mut limits.max_dim, 1..=grpc::Limits::LARGEST_DIM);
        self.within("limits.max_entries", &mut limits.max_entries, COUNT);
        self.within("limits.max_write_rows", &mut limits.max_write_rows, COUNT);
        self.within("limits.max_fetch_rows", &mut limits.max_fetch_rows, COUNT);
        self.within("limits.max_anchors", &mut limits.max_anchors, COUNT);
        self.within("limits.max_ranks", &mut limits.max_ranks, COUNT);
        self.within("limits.max_k", &mut limits.max_k, COUNT);
        self.within("limits.max_ranked", &mut limits.max_ranked, COUNT);
        self.within("limits.max_scored_entries", &mut limits.max_scored_entries, COUNT);
        self.within("limits.softmax_candidates", &mut limits.softmax_candidates, COUNT);
        self.within("limits.max_picks", &mut limits.max_picks, COUNT);
        self.within("limits.max_filter_values", &mut limits.max_filter_values, COUNT);
        self.within("limits.max_listed_ids", &mut limits.max_listed_ids, COUNT);
        self.within("limits.max_answer_bytes", &mut limits.max_answer_bytes, MESSAGE_BYTES);
    }

    fn compute(&mut self, engine: &mut engine::Config) {
        self.within("compute.threads", &mut engine.threads, THREADS);
        self.within("compute.queue", &mut engine.queue, COUNT);
        self.within("compute.write_queue", &mut engine.write_queue, COUNT);
        self.within("limits.max_banks", &mut engine.max_banks, COUNT);
        self.within("limits.max_stages", &mut engine.max_stages, COUNT);
        self.within("limits.max_staged_rows", &mut engine.max_staged_rows, COUNT);
    }

    fn index(&mut self, index: &mut engine::IndexConfig) {
        self.take("index.enabled", &mut index.enabled, |_| true, "true or false");
        self.take("index.keep", &mut index.keep, |_| true, "true or false");
        self.within("index.min_entries", &mut index.min_entries, COUNT);
        self.within("index.m", &mut index.m, 4..=128);
        self.within("index.ef_construction", &mut index.ef_construction, 8..=4_096);
        self.within("index.threads", &mut index.threads, THREADS);
        self.within("index.cpu_percent", &mut index.cpu_percent, PERCENT);
        self.within("index.rebuild_percent", &mut index.rebuild_percent, PERCENT);
        self.within("index.max_percent", &mut index.max_percent, PERCENT);
        self.within("index.drift_percent", &mut index.drift_percent, PERCENT);
        self.within("index.mean_drift_percent", &mut index.mean_drift_percent, PERCENT);
    }

    fn gather(&mut self, gather: &mut engine::GatherConfig) {
        self.within("gather.max_bytes", &mut gather.max_bytes, MESSAGE_BYTES);
        self.within("gather.max_total_bytes", &mut gather.max_total_bytes, INBOUND_BYTES);
        self.within("gather.max_gathers", &mut gather.max_gathers, COUNT);
        self.seconds("gather.keep_seconds", &mut gather.keep);
        if gather.max_total_bytes < gather.max_bytes {
            self.problems.push(format!(
                "gather.max_total_bytes: {} is below gather.max_bytes = {}: the largest gather could never be taken",
                gather.max_total_bytes, gather.max_bytes
            ));
        }
    }

    fn log(&mut self, log: &mut telemetry::Config) {
        self.take("log.format", &mut log.format, |_| true, "text or json");
        self.take(
            "log.filter",
            &mut log.filter,
            telemetry::is_filter,
            "a filter, as in info or negbank=debug,tower_http=debug",
        );
    }

    /// Where traces go: `none` makes none.
    fn traces(&mut self, traces: &mut telemetry::TracesConfig) {
        let mut endpoint = NONE.to_owned();
        let is_url = |given: &String| given == NONE || given.starts_with("http://") || given.starts_with("https://");
        self.take("traces.endpoint", &mut endpoint, is_url, "a collector's URL, as in http://127.0.0.1:4317, or none");
        traces.endpoint = (endpoint != NONE).then_some(endpoint);
        self.within("traces.sample_per_million", &mut traces.sample_per_million, 0..=1_000_000);
        self.take("traces.service_name", &mut traces.service_name, |given| !given.is_empty(), "a name");
    }

    fn seconds(&mut self, key: &str, setting: &mut Duration) {
        let mut seconds = setting.as_secs();
        let wanted = format!("seconds, {} to {}", SECONDS.start(), SECONDS.end());
        self.take(key, &mut seconds, |given| SECONDS.contains(given), &wanted);
        *setting = Duration::from_secs(seconds);
    }

    fn within(&mut self, key: &str, setting: &mut usize, range: RangeInclusive<usize>) {
        let wanted = format!("a whole number, {} to {}", range.start(), range.end());
        self.take(key, setting, |given| range.contains(given), &wanted);
    }

    /// Sets `setting` if `key` was given and fits.
    fn take<T>(&mut self, key: &str, setting: &mut T, fits: impl Fn(&T) -> bool, wanted: &str)
    where
        T: for<'de> Deserialize<'de> + fmt::Display,
    {
        let mut from = "default".to_owned();
        if let Some(value) = self.given.remove(key) {
            from = origin(&value);
            let shown = value.to_string();
            match value.try_deserialize::<T>() {
                Ok(given) if fits(&given) => *setting = given,
                _ => self.problems.push(format!("{key}: {shown:?} (from {from}) is not {wanted}")),
            }
        }
        let (key, value, meaning) = (key.to_owned(), setting.to_string(), meanings::of(key));
        self.effective.push(Effective { key, value, origin: from, meaning });
    }

    fn finish(mut self) -> Result<Vec<Effective>, Problems> {
        for (key, value) in &self.given {
            let meant = meanings::closest(key).map_or_else(String::new, |known| format!("; did you mean {known}?"));
            let problem = format!("{key} (from {}) is not a setting{meant}; `negbank config` lists them all", origin(value));
            self.problems.push(problem);
        }
        self.effective.sort();
        if self.problems.is_empty() { Ok(self.effective) } else { Err(Problems(self.problems)) }
    }
}

fn flatten(key: String, value: Value, into: &mut BTreeMap<String, Value>) {
    match value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                flatten(format!("{key}.{name}"), value, into);
            }
        }
        _ => {
            into.insert(key, value);
        }
    }
}

fn origin(value: &Value) -> String {
    value.origin().unwrap_or("a flag").to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{Settings, Sources};

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        writeln!(file, "[limits]\nmax_k = 10\nmax_dim = 11\nmax_anchors = 12\n[log]\nformat = \"json\"").unwrap();
        let sources = Sources {
            file: Some(file.path().to_owned()),
            environment: [("NEGBANK__LIMITS__MAX_K", "20"), ("NEGBANK__LIMITS__MAX_DIM", "21"), ("PATH", "/bin")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            flags: vec!["limits.max_k=30".to_owned(), "server.listen=[::1]:9".to_owned()],
        };
        let settings = Settings::load(&sources).unwrap();
        assert_eq!((settings.limits.max_k, settings.limits.max_dim, settings.limits.max_anchors), (30, 21, 12));
        assert_eq!(settings.server.listen.unwrap().to_string(), "[::1]:9");
        assert_eq!(settings.log.format, crate::telemetry::Format::Json);

        let (_, effective) = Settings::explain(&sources).unwrap();
        let of = |key: &str| effective.iter().find(|setting| setting.key == key).unwrap();
        assert_eq!((of("limits.max_k").value.as_str(), of("limits.max_k").origin.as_str()), ("30", "a flag"));
        let name = file.path().file_name().unwrap().to_str().unwrap();
        assert!(of("limits.max_anchors").origin.ends_with(name), "{:?}", of("limits.max_anchors"));
        assert!(of("limits.max_dim").origin.contains("environment"), "{:?}", of("limits.max_dim"));
        assert_eq!(of("compute.queue").origin, "default");
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let sources = Sources {
            file: None,
            environment: [("NEGBANK__LIMITS__MAX_K", "many")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            flags: ["limits.max_dim=0", "server.listen=nowhere", "limits.max_x=1", "foo", "log.filter=a=b=c"]
                .map(str::to_owned)
                .into(),
        };
        let problems = Settings::load(&sources).unwrap_err().0;
        assert_eq!(problems.len(), 6, "{problems:?}");
        for (problem, says) in problems.iter().zip(["foo", "nowhere", "max_dim", "max_k", "log.filter", "limits.max_x"]) {
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn the_server_listens_somewhere() {
        let load = |flags: &[&str]| {
            let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
            Settings::load(&Sources { flags, ..Sources::default() }).map(|settings| settings.server)
        };
        let server = load(&["server.unix_socket=/run/negbank.sock", "server.listen=none"]).unwrap();
        assert_eq!((server.listen, server.unix_socket), (None, Some("/run/negbank.sock".into())));
        let server = load(&["server.unix_socket=none"]).unwrap();
        assert!(server.listen.is_some() && server.unix_socket.is_none());
        assert!(load(&["server.listen=none"]).unwrap_err().to_string().contains("nobody could call"));
        assert!(load(&["server.unix_socket="]).unwrap_err().to_string().contains("server.unix_socket"));
    }

    #[test]
    fn a_policy_that_nothing_keeps_is_refused() {
        let load = |flags: &[&str]| {
            let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
            Settings::load(&Sources { flags, ..Sources::default() })
        };
        assert!(load(&["durability.policy=always"]).unwrap_err().to_string().contains("set durability.dir"));
        assert!(load(&["durability.policy=always", "durability.dir=/data"]).is_ok());
        assert!(load(&["durability.policy=interval"]).is_ok());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let sources = Sources { file: Some("/nonexistent/negbank.toml".into()), ..Sources::default() };
        assert!(Settings::load(&sources).unwrap_err().to_string().contains("/nonexistent/negbank.toml"));
    }
}

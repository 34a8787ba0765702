//! Figures of the process, as Prometheus reads them.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::methods::Methods;
use super::process::{Disk, Process};

/// What is not of the process, or of its disks, is of negbank.
const PREFIX: &str = "negbank";

/// The process's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// False: nobody reads them, and nothing is noted.
    on: bool,
    all: Arc<All>,
}

#[derive(Debug)]
struct All {
    registry: Mutex<Registry>,
    methods: Methods,
    readers_cut: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let ours = registry.sub_registry_with_prefix(PREFIX);
        let methods = Methods::register(ours);
        let readers_cut = Counter::default();
        ours.register("readers_cut", "Clients that were cut since they did not read their answers", readers_cut.clone());
        Self { on: true, all: Arc::new(All { registry: Mutex::new(registry), methods, readers_cut }) }
    }
}

impl Metrics {
    /// Notes nothing.
    pub fn off() -> Self {
        Self { on: false, ..Self::default() }
    }

    /// True if somebody may read them.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// From now on there are these methods, each `package.Service/Method`; those of the first call stay.
    pub fn serve(&self, methods: Vec<String>) {
        self.all.methods.serve(methods);
    }

    /// Asks `collector` too, whenever somebody reads.
    pub fn register(&self, collector: impl Collector) {
        let mut registry = self.all.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.sub_registry_with_prefix(PREFIX).register_collector(Box::new(collector));
    }

    /// Tells how full the disk of `folder` is, which `setting` names.
    pub fn watch_disk(&self, setting: &'static str, folder: PathBuf) {
        self.register(Disk { setting, folder });
    }

    /// Notes a client that was cut since it did not read its answer.
    pub fn reader_cut(&self) {
        self.all.readers_cut.inc();
    }

    /// Times by method.
    pub(super) fn methods(&self) -> &Methods {
        &self.all.methods
    }

    /// All of it, in the text format of OpenMetrics.
    ///
    /// # Errors
    /// If a figure can't be written.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.all.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

//! A connection to a server, as Python holds it.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{mem, process};

use negbank::client::{Client, ClientError, Options, Security};
use negbank::proto::v1::{
    DeleteBankRequest, DeleteCheckpointRequest, FetchRequest, GetBankRequest, ListCheckpointsRequest, RemoveRequest,
    StalestRequest,
};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use tokio::time::timeout;

use crate::bank::{BankDescription, BankSettings};
use crate::checkpoint::{CheckpointCall, CheckpointDescription, RestoreCall};
use crate::failure::{exception, invalid, located};
use crate::fetch::{FetchCall, Fetched, Stalest};
use crate::flight::Flight;
use crate::gather::{GatherCall, GatherDescription, Gathered};
use crate::runtime::{runtime, wait};
use crate::sample::{SampleCall, Sampled};
use crate::scan::{Chunks, ScanCall};
use crate::trace;
use crate::write::{WriteBatch, Written, values};

/// Longest wait for a server's first answer.
const CONNECT_AT_MOST: Duration = Duration::from_secs(5);

/// A connection that any thread may use, calls side by side. Unpickled, and in a forked process, it connects anew, as another
/// writer. The methods named `start_*` return at once and call `landed(answer, fault)` when the call has ended.
#[pyclass(frozen, module = "negbank._negbank")]
pub(crate) struct Session {
    address: String,
    options: Options,
    connected: Mutex<Connected>,
}

/// Token, authorities, own certificate, its key, and the server's name. Pickle keeps it, since a DataLoader's workers connect anew.
type Credentials = (Option<String>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, Option<String>);

fn security(credentials: Credentials) -> Security {
    let (token, ca, certificate, key, server_name) = credentials;
    Security { token, ca, identity: certificate.zip(key), server_name }
}

/// A client, with the process whose threads serve it.
struct Connected {
    process: u32,
    client: Client,
}

#[pymethods]
impl Session {
    #[new]
    fn new(
        py: Python<'_>,
        address: String,
        timeout: f64,
        max_message_bytes: usize,
        retries: u32,
        writer: Option<String>,
        credentials: Credentials,
    ) -> PyResult<Self> {
        let timeout = seconds(timeout).map_err(|fault| exception(py, fault))?;
        let connect_timeout = timeout.min(CONNECT_AT_MOST);
        let security = security(credentials);
        let options = Options { timeout, connect_timeout, max_message_bytes, retries, writer, security, ..Options::default() };
        let client = connect(py, &address, &options)?;
        Ok(Self { address, options, connected: Mutex::new(Connected { process: process::id(), client }) })
    }

    /// The arguments that make this session again: what pickle keeps of it.
    fn __getnewargs__(&self) -> (&str, f64, usize, u32, Option<&str>, Credentials) {
        let Options { timeout, max_message_bytes, retries, writer, security, .. } = &self.options;
        let Security { token, ca, identity, server_name } = security.clone();
        let (certificate, key) = identity.unzip();
        let credentials = (token, ca, certificate, key, server_name);
        (&self.address, timeout.as_secs_f64(), *max_message_bytes, *retries, writer.as_deref(), credentials)
    }

    /// The server's address, as given.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    fn create_bank(&self, py: Python<'_>, settings: BankSettings, timeout: Option<f64>) -> PyResult<BankDescription> {
        let request = settings.into_message().map_err(|fault| exception(py, fault))?;
        self.call(py, timeout, async move |client| client.create_bank(request).await.map(BankDescription::from))
    }

    fn get_bank(&self, py: Python<'_>, name: String, timeout: Option<f64>) -> PyResult<BankDescription> {
        let request = GetBankRequest { name };
        self.call(py, timeout, async move |client| client.get_bank(request).await.map(BankDescription::from))
    }

    fn list_banks(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<BankDescription>> {
        let listed = self.call(py, timeout, async move |client| client.list_banks().await)?;
        Ok(listed.banks.into_iter().map(BankDescription::from).collect())
    }

    fn delete_bank(&self, py: Python<'_>, name: String, timeout: Option<f64>) -> PyResult<u64> {
        let request = DeleteBankRequest { name };
        self.call(py, timeout, async move |client| client.delete_bank(request).await.map(|answer| answer.entries))
    }

    fn checkpoint(&self, py: Python<'_>, call: CheckpointCall, timeout: Option<f64>) -> PyResult<CheckpointDescription> {
        self.call(py, timeout, |client| call.send(client))
    }

    fn restore(&self, py: Python<'_>, call: RestoreCall, timeout: Option<f64>) -> PyResult<BankDescription> {
        self.call(py, timeout, |client| call.send(client))
    }

    fn list_checkpoints(&self, py: Python<'_>, bank: String, timeout: Option<f64>) -> PyResult<Vec<CheckpointDescription>> {
        let request = ListCheckpointsRequest { bank };
        let listed = self.call(py, timeout, async move |client| client.list_checkpoints(request).await)?;
        Ok(listed.checkpoints.into_iter().map(CheckpointDescription::from).collect())
    }

    fn delete_checkpoint(&self, py: Python<'_>, bank: String, tag: String, timeout: Option<f64>) -> PyResult<()> {
        let request = DeleteCheckpointRequest { bank, tag };
        self.call(py, timeout, async move |client| client.delete_checkpoint(request).await.map(|_| ()))
    }

    fn write(&self, py: Python<'_>, batch: WriteBatch<'_>, timeout: Option<f64>) -> PyResult<Written> {
        let request = batch.into_message(py)?;
        self.call(py, timeout, async move |client| client.write(request).await.map(Written::from))
    }

    fn start_write(&self, py: Python<'_>, batch: WriteBatch<'_>, timeout: Option<f64>, landed: Py<PyAny>) -> PyResult<Flight> {
        let request = batch.into_message(py)?;
        self.start(py, timeout, landed, async move |client| client.write(request).await.map(Written::from))
    }

    fn fetch(&self, py: Python<'_>, call: FetchCall<'_>, timeout: Option<f64>) -> PyResult<Fetched> {
        let request: FetchRequest = call.into_message(py)?;
        self.call(py, timeout, async move |client| client.fetch_columns(request).await.map(Fetched::from))
    }

    fn start_fetch(&self, py: Python<'_>, call: FetchCall<'_>, timeout: Option<f64>, landed: Py<PyAny>) -> PyResult<Flight> {
        let request: FetchRequest = call.into_message(py)?;
        self.start(py, timeout, landed, async move |client| client.fetch_columns(request).await.map(Fetched::from))
    }

    fn remove(&self, py: Python<'_>, bank: String, ids: PyReadonlyArray1<'_, u64>, timeout: Option<f64>) -> PyResult<u64> {
        let request = RemoveRequest { bank, ids: values(Some(ids)) };
        self.call(py, timeout, async move |client| client.remove(request).await.map(|answer| answer.removed))
    }

    fn stalest(&self, py: Python<'_>, bank: String, k: u32, at_least: Vec<u8>, timeout: Option<f64>) -> PyResult<Stalest> {
        let request = StalestRequest { bank, k, at_least: at_least.into() };
        self.call(py, timeout, async move |client| client.stalest(request).await.map(Stalest::from))
    }

    fn scan(&self, py: Python<'_>, call: ScanCall, timeout: Option<f64>) -> PyResult<Chunks> {
        let request = call.into_message(py)?;
        let scan = self.call(py, timeout, async move |client| client.scan(request).await)?;
        Ok(Chunks::new(scan, self.address.clone()))
    }

    fn sample(&self, py: Python<'_>, call: SampleCall<'_>, timeout: Option<f64>) -> PyResult<Sampled> {
        let retries = call.retries().unwrap_or(self.options.retries);
        let request = call.into_message(py)?;
        let send = async move |client: Client| client.with_retries(retries).sample_columns(request).await.map(Sampled::from);
        self.call(py, timeout, send)
    }

    fn gather(&self, py: Python<'_>, call: GatherCall<'_>, timeout: Option<f64>) -> PyResult<Gathered> {
        let retries = call.retries().unwrap_or(self.options.retries);
        let request = call.into_message(py)?;
        let send = async move |client: Client| client.with_retries(retries).gather(request).await.map(Gathered::from);
        self.call(py, timeout, send)
    }

    fn start_gather(&self, py: Python<'_>, call: GatherCall<'_>, timeout: Option<f64>, landed: Py<PyAny>) -> PyResult<Flight> {
        let retries = call.retries().unwrap_or(self.options.retries);
        let request = call.into_message(py)?;
        let send = async move |client: Client| client.with_retries(retries).gather(request).await.map(Gathered::from);
        self.start(py, timeout, landed, send)
    }

    fn list_gathers(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<GatherDescription>> {
        let listed = self.call(py, timeout, async move |client| client.list_gathers().await)?;
        Ok(listed.gathers.into_iter().map(GatherDescription::from).collect())
    }

    fn start_sample(&self, py: Python<'_>, call: SampleCall<'_>, timeout: Option<f64>, landed: Py<PyAny>) -> PyResult<Flight> {
        let retries = call.retries().unwrap_or(self.options.retries);
        let request = call.into_message(py)?;
        let send = async move |client: Client| client.with_retries(retries).sample_columns(request).await.map(Sampled::from);
        self.start(py, timeout, landed, send)
    }
}

impl Session {
    /// One call under its deadline, its answer taken apart before the GIL is taken back.
    fn call<T: Send, F: Future<Output = Result<T, ClientError>> + Send>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        send: impl FnOnce(Client) -> F,
    ) -> PyResult<T> {
        let client = self.client_for(py, timeout)?;
        let answer = wait(py, send(client))?;
        answer.map_err(|fault| exception(py, located(fault, &self.address)))
    }

    /// One call that runs by itself.
    fn start<T, F>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        landed: Py<PyAny>,
        send: impl FnOnce(Client) -> F,
    ) -> PyResult<Flight>
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
        F: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let client = self.client_for(py, timeout)?;
        Ok(Flight::start(runtime()?, send(client), self.address.clone(), landed))
    }

    fn client_for(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Client> {
        let timeout = timeout.map(seconds).transpose().map_err(|fault| exception(py, fault))?;
        let client = self.client(py)?.with_timeout(timeout.unwrap_or(self.options.timeout));
        Ok(trace::carried(py, client))
    }

    /// This process's client. A forked child has the parent's client but not the threads that serve it: it gets its own, and
    /// the parent's is left as it is, because dropping it would wait for those threads.
    fn client(&self, py: Python<'_>) -> PyResult<Client> {
        let here = process::id();
        {
            let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
            if connected.process == here {
                return Ok(connected.client.clone());
            }
        }
        let client = connect(py, &self.address, &self.options)?;
        let mine = Connected { process: here, client: client.clone() };
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        mem::forget(mem::replace(&mut *connected, mine));
        Ok(client)
    }
}

/// Connects, and has the server answer once: a port may be open and nobody's.
fn connect(py: Python<'_>, address: &str, options: &Options) -> PyResult<Client> {
    let within = options.connect_timeout;
    let answered = async {
        let client = Client::connect(address, options.clone()).await?;
        client.with_retries(0).list_banks().await.map(|_| client)
    };
    let work = async {
        match timeout(within, answered).await {
            Ok(Err(ClientError::DeadlineExceeded(_))) | Err(_) => {
                let message = format!("{address} answered nothing within {within:?}; is it a negbank server?");
                Err(ClientError::Unavailable { message, retry_after: None })
            }
            Ok(outcome) => outcome,
        }
    };
    wait(py, work)?.map_err(|fault| exception(py, fault))
}

fn seconds(timeout: f64) -> Result<Duration, ClientError> {
    let refuse = || invalid("timeout", format!("{timeout} is no deadline: give seconds above 0, such as 30.0"));
    Duration::try_from_secs_f64(timeout).ok().filter(|timeout| !timeout.is_zero()).ok_or_else(refuse)
}

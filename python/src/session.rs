//! A connection to a server, as Python holds it.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{mem, process};

use negbank::client::{Client, ClientError, Options};
use negbank::proto::v1::{DeleteBankRequest, FetchRequest, GetBankRequest, RemoveRequest};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use tokio::time::timeout;

use crate::bank::{BankDescription, BankSettings};
use crate::failure::{exception, invalid, located};
use crate::fetch::Fetched;
use crate::runtime::wait;
use crate::sample::{SampleCall, Sampled};
use crate::write::{WriteBatch, Written, values};

/// Longest wait for a server's first answer.
const CONNECT_AT_MOST: Duration = Duration::from_secs(5);

/// A connection that any thread may use, calls side by side. Unpickled, and in a forked process, it connects anew.
#[pyclass(frozen, module = "negbank._negbank")]
pub(crate) struct Session {
    address: String,
    options: Options,
    connected: Mutex<Connected>,
}

/// A client, with the process whose threads serve it.
struct Connected {
    process: u32,
    client: Client,
}

#[pymethods]
impl Session {
    #[new]
    fn new(py: Python<'_>, address: String, timeout: f64, max_message_bytes: usize) -> PyResult<Self> {
        let timeout = seconds(timeout).map_err(|fault| exception(py, fault))?;
        let options = Options {
            timeout,
            connect_timeout: timeout.min(CONNECT_AT_MOST),
            max_message_bytes,
            retries: 0,
            ..Options::default()
        };
        let client = connect(py, &address, &options)?;
        Ok(Self { address, options, connected: Mutex::new(Connected { process: process::id(), client }) })
    }

    /// The arguments that make this session again: what pickle keeps of it.
    fn __getnewargs__(&self) -> (&str, f64, usize) {
        (&self.address, self.options.timeout.as_secs_f64(), self.options.max_message_bytes)
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

    fn write(&self, py: Python<'_>, batch: WriteBatch<'_>, timeout: Option<f64>) -> PyResult<Written> {
        let request = batch.into_message()?;
        self.call(py, timeout, async move |client| client.write(request).await.map(Written::from))
    }

    fn fetch(
        &self,
        py: Python<'_>,
        bank: String,
        ids: PyReadonlyArray1<'_, u64>,
        at_least: Vec<u8>,
        timeout: Option<f64>,
    ) -> PyResult<Fetched> {
        let request = FetchRequest { bank, ids: values(Some(ids)), at_least: at_least.into(), ..FetchRequest::default() };
        self.call(py, timeout, async move |client| client.fetch_columns(request).await.map(Fetched::from))
    }

    fn remove(&self, py: Python<'_>, bank: String, ids: PyReadonlyArray1<'_, u64>, timeout: Option<f64>) -> PyResult<u64> {
        let request = RemoveRequest { bank, ids: values(Some(ids)) };
        self.call(py, timeout, async move |client| client.remove(request).await.map(|answer| answer.removed))
    }

    fn sample(&self, py: Python<'_>, call: SampleCall<'_>, timeout: Option<f64>) -> PyResult<Sampled> {
        let request = call.into_message(py)?;
        self.call(py, timeout, async move |client| client.sample_columns(request).await.map(Sampled::from))
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
        let timeout = timeout.map(seconds).transpose().map_err(|fault| exception(py, fault))?;
        let client = self.client(py)?.with_timeout(timeout.unwrap_or(self.options.timeout));
        let answer = wait(py, send(client))?;
        answer.map_err(|fault| exception(py, located(fault, &self.address)))
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
        client.list_banks().await.map(|_| client)
    };
    let work = async {
        match timeout(within, answered).await {
            Ok(Err(ClientError::DeadlineExceeded(_))) | Err(_) => {
                Err(ClientError::Unavailable(format!("{address} answered nothing within {within:?}; is it a negbank server?")))
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

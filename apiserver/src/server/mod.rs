//! Starting, running and stopping the server: files, listeners, TLS, connections.

mod bootstrap;
mod connections;
mod files;
mod listen;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::Token;
use crate::error::ApiError;
use crate::http::{App, MAX_WATCHES};
use crate::options::{ListenAddress, Options};
use crate::service::{Service, Validator, reap};
use crate::store::{DiskError, Limits, Store};

/// Connections get this long to finish their requests when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file in the data directory.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
    /// The database.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A listener.
    #[error("cannot listen on {place}: {error}")]
    Listen {
        /// Where.
        place: String,
        /// What went wrong.
        error: std::io::Error,
    },
    /// No listener was asked for.
    #[error("no address to listen on; give at least one --listen ADDR:PORT")]
    NowhereToListen,
    /// Keys or certificates.
    #[error("cannot make or load the server's certificate: {0}")]
    Certificate(String),
    /// The token file holds no usable token.
    #[error(
        "{0}: the token must have at least 16 characters; delete the file to have a new one made"
    )]
    WeakToken(PathBuf),
    /// The namespaces or the given manifests could not be stored.
    #[error("cannot store {what}: {error}")]
    Bootstrap {
        /// Which object.
        what: String,
        /// Why.
        error: Box<ApiError>,
    },
}

/// Collects what a server is to be made of.
pub struct ServerBuilder {
    data: PathBuf,
    listen: Vec<ListenAddress>,
    sans: Vec<String>,
    validators: Vec<Box<dyn Validator>>,
    manifests: Vec<Value>,
    limits: Limits,
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("data", &self.data)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl From<Options> for ServerBuilder {
    fn from(options: Options) -> Self {
        let mut builder = Self::new(options.data);
        builder.listen = options
            .listen
            .into_iter()
            .chain(options.listen_netns)
            .collect();
        builder.sans = options.san;
        builder
    }
}

impl ServerBuilder {
    /// A server over the data directory `data`, listening nowhere yet.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: Vec::new(),
            sans: Vec::new(),
            validators: Vec::new(),
            manifests: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Also listens on `address`.
    #[must_use]
    pub fn listen(mut self, address: ListenAddress) -> Self {
        self.listen.push(address);
        self
    }

    /// Also puts `name` (a DNS name or an IP address) into the certificate.
    #[must_use]
    pub fn san(mut self, name: impl Into<String>) -> Self {
        self.sans.push(name.into());
        self
    }

    /// Also checks every write with `validator`.
    #[must_use]
    pub fn validator(mut self, validator: impl Validator + 'static) -> Self {
        self.validators.push(Box::new(validator));
        self
    }

    /// Objects (typically CRDs) that are applied at every start, before the first client is served.
    #[must_use]
    pub fn manifests(mut self, objects: impl IntoIterator<Item = Value>) -> Self {
        self.manifests.extend(objects);
        self
    }

    /// Other limits of history and size.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Opens the database, makes what files are missing, and starts to serve.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<Server, StartError> {
        if self.listen.is_empty() {
            return Err(StartError::NowhereToListen);
        }
        files::prepare_directory(&self.data)?;
        // The database's lock also guards the other files of the directory.
        let database = self.data.join("store.redb");
        files::prepare_database(&database)?;
        let store = Store::open(&database, self.limits)?;
        let token_path = self.data.join("token");
        let token =
            Token::new(&files::token(&token_path)?).ok_or(StartError::WeakToken(token_path))?;
        let mut listeners = Vec::new();
        for address in &self.listen {
            listeners.push(listen::bind(address)?);
        }
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        let identity = tls::identity(&self.data, &addresses, &self.sans)?;
        let url = files::url(&self.listen, &addresses);

        let service = Arc::new(Service::new(store, self.validators));
        bootstrap::run(&service, self.manifests).await?;
        // Last: whoever waits for this file finds a server that answers.
        let kubeconfig = files::kubeconfig(&url, &identity.authority, token.secret());
        files::write_private(&self.data.join("kubeconfig"), &kubeconfig)?;

        let shutdown = CancellationToken::new();
        let app = Arc::new(App {
            service: Arc::clone(&service),
            token,
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
            shutdown: shutdown.clone(),
        });
        let acceptor = tokio_rustls::TlsAcceptor::from(identity.config);
        let mut tasks = JoinSet::new();
        tasks.spawn(reap(Arc::downgrade(&service)));
        for listener in listeners {
            tasks.spawn(connections::serve(
                listener,
                acceptor.clone(),
                Arc::clone(&app),
                shutdown.clone(),
            ));
        }
        tracing::info!(data = %self.data.display(), %url, "serving");
        Ok(Server {
            addresses,
            data: self.data,
            tasks,
            shutdown,
            service,
        })
    }
}

/// A running server; stops when dropped, gracefully with [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    data: PathBuf,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
    service: Arc<Service>,
}

impl Server {
    /// The addresses listened on, in the order they were given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The kubeconfig file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The verbs, for use within the process.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Ends all watches, lets running requests finish for a few seconds, and closes the database.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let drained = tokio::time::timeout(GRACE, async {
            // The reaper ends with the service, not with the listeners: it is aborted below.
            while self.tasks.len() > 1 {
                if self.tasks.join_next().await.is_none() {
                    break;
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!("some connections did not finish in time and are closed");
        }
        self.tasks.shutdown().await;
    }
}

/// Serves until `shutdown` completes: all of `margay apiserver` but the validators and manifests.
///
/// # Errors
/// [`StartError`].
pub async fn run(
    builder: impl Into<ServerBuilder>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let server = builder.into().start().await?;
    shutdown.await;
    server.stop().await;
    Ok(())
}

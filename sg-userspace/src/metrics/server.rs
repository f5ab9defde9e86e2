//! A small HTTP server for one document.
//!
//! Whoever connects gets one answer per connection. Connections are bounded in number and time, so
//! that a client that sends nothing, or slowly, keeps nobody else out for long.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
    time::timeout,
};

use crate::{session::Context, status::chain};

use super::Figures;

/// Connections served at a time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// How long a client may take to say what it wants.
const HEADER: Duration = Duration::from_secs(2);
/// How long a connection may live.
const WHOLE: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed, as it does when no file descriptor is left.
const REST: Duration = Duration::from_millis(100);
/// Bytes and header lines of a request.
const REQUEST_BYTES: usize = 16 << 10;
const REQUEST_HEADERS: usize = 64;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A listening server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    context: Context,
}

/// Why figures are not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Anybody could read them.
    #[error(
        "metrics on {address} could be read from outside; --metrics-public allows it, 127.0.0.1 or [::1] needs no permission"
    )]
    Public {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot serve metrics on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Server {
    /// Listens on `address`, which must be a loopback address unless `public`.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn listen(
        context: &Context,
        address: SocketAddr,
        public: bool,
    ) -> Result<Self, ServerError> {
        if !(public || address.ip().to_canonical().is_loopback()) {
            return Err(ServerError::Public { address });
        }
        let failed = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self {
            address: listener.local_addr().map_err(failed)?,
            listener,
            context: context.clone(),
        })
    }

    /// Where it listens, with the port that the kernel gave if it was asked for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let source = Arc::new(Source {
            context: self.context,
            reading: Arc::default(),
        });
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let source = Arc::clone(&source);
                    tokio::spawn(async move {
                        converse(stream, source).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    log::warn!("metrics: cannot accept a connection: {error}");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// Where the document comes from.
struct Source {
    context: Context,
    /// Held while figures are read: reading walks the flow tables, once at a time is enough.
    reading: Arc<Mutex<()>>,
}

async fn converse(stream: TcpStream, source: Arc<Source>) {
    let service = service_fn(move |request| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(answer(&request, &source).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES)
        .max_headers(REQUEST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(WHOLE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("metrics: connection ended: {error}"),
        Err(_) => log::debug!("metrics: connection ended: it took too long"),
    }
}

async fn answer(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut refusal = response(
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "only GET\n".to_owned(),
        );
        let allowed = HeaderValue::from_static("GET");
        refusal.headers_mut().insert(ALLOW, allowed);
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => document(source).await,
        "/" => response(
            StatusCode::OK,
            TEXT,
            "sgctl: figures are at /metrics\n".to_owned(),
        ),
        _ => response(StatusCode::NOT_FOUND, TEXT, "not here\n".to_owned()),
    }
}

async fn document(source: &Source) -> Response<Full<Bytes>> {
    let reading = Arc::clone(&source.reading).lock_owned().await;
    let context = source.context.clone();
    // Reading goes on when the client does not wait for it, and nobody else begins before its end.
    let read = tokio::task::spawn_blocking(move || {
        let _reading = reading;
        Figures::read(&context)
            .map(|figures| figures.to_string())
            .map_err(|error| chain(&error))
    });
    match read.await {
        Ok(Ok(text)) => response(StatusCode::OK, OPENMETRICS, text),
        Ok(Err(error)) => failure(&error),
        Err(error) => failure(&error.to_string()),
    }
}

/// What is wrong is for the log: the answer may go to strangers.
fn failure(error: &str) -> Response<Full<Bytes>> {
    log::warn!("metrics: cannot read the figures: {error}");
    response(
        StatusCode::INTERNAL_SERVER_ERROR,
        TEXT,
        "the figures cannot be read; the agent's log says why\n".to_owned(),
    )
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

//! Connections, each served by itself.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tower::layer::util::{Identity, Stack};

use super::connection::{Connection, Origin};
use super::endless::until_dropped;
use super::stack;

/// HTTP/2 and the layers, without services.
pub(super) type Transport = tonic::transport::Server<Stack<stack::Layers, Identity>>;

/// Serves connections as they come until `stopped`'s sender is gone; then those that are there are asked to end, and this does once
/// they have. A tonic server has one age for all of its connections, and here each has its own: so each has a server.
pub(super) async fn serve<C>(
    incoming: impl Stream<Item = io::Result<Connection<C>>>,
    (transport, routes): (Transport, Routes),
    stopped: watch::Receiver<()>,
) where
    C: AsyncRead + AsyncWrite + Connected<ConnectInfo: Origin> + Unpin + Send + 'static,
{
    let mut served = JoinSet::new();
    // Within, so that nothing listens any more while the last are waited for.
    {
        let mut incoming = std::pin::pin!(incoming);
        let mut stop = std::pin::pin!(until_dropped(stopped.clone()));
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_ended) = served.join_next() => {}
                accepted = incoming.next() => match accepted {
                    Some(Ok(connection)) => {
                        served.spawn(one(connection, (transport.clone(), routes.clone()), stopped.clone()));
                    }
                    // It was told of, and another may come.
                    Some(Err(_)) => {}
                    None => break,
                },
            }
        }
    }
    while served.join_next().await.is_some() {}
}

/// Serves a connection until it ends by itself, or is asked to, since it is old or the server stops, and has ended.
async fn one<C>(mut connection: Connection<C>, (transport, routes): (Transport, Routes), stopped: watch::Receiver<()>)
where
    C: AsyncRead + AsyncWrite + Connected<ConnectInfo: Origin> + Unpin + Send + 'static,
{
    // Told of a grace as well, tonic (0.14) asks nobody to end and only cuts; so that is done by `Lifespan`.
    let transport = connection.age().into_iter().fold(transport, tonic::transport::Server::max_connection_age);
    let gone = connection.gone();
    let ends = async move {
        tokio::select! {
            () = gone => {}
            () = until_dropped(stopped) => {}
        }
    };
    // An incoming stream that ends would be a server that stops.
    let alone = tokio_stream::once(Ok::<_, io::Error>(connection)).chain(tokio_stream::pending());
    if let Err(fault) = transport.serve_with_incoming_shutdown(routes, alone, ends).await {
        tracing::debug!(%fault, "a connection could not be served");
    }
}

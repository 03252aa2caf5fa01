//! Finding the runtime: the sockets that are tried, and the events that it has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use netsonde_cri::containerd::Envelope;
use netsonde_cri::v1::{ContainerEventResponse, VersionResponse};
use netsonde_cri::{Channel, Error, Stream};
use prost::Message;

use super::Wanted;

/// How long a runtime may take to greet.
const GREETING: Duration = Duration::from_secs(2);

/// Where runtimes listen, in the order in which they are tried. Docker has a containerd too, whose CRI is off: it is
/// passed over because it does not know the call.
const USUAL: [&str; 6] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// A runtime that has answered.
pub(super) struct Found {
    pub(super) socket: PathBuf,
    pub(super) channel: Channel,
    pub(super) version: VersionResponse,
}

/// The first that answers. `Ok(None)` where none is wanted by name and there is no socket at all.
pub(super) async fn connect(wanted: &Wanted) -> Result<Option<Found>, Error> {
    let sockets: Vec<PathBuf> = match wanted {
        Wanted::Off => Vec::new(),
        Wanted::Auto => USUAL.map(PathBuf::from).into(),
        Wanted::Socket(socket) => vec![socket.clone()],
    };
    let mut why = None;
    for socket in sockets {
        match greet(&socket).await {
            Ok((channel, version)) => return Ok(Some(Found { socket, channel, version })),
            Err(Error::Connect(error))
                if *wanted == Wanted::Auto && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                why.get_or_insert(error);
            }
        }
    }
    why.map_or(Ok(None), Err)
}

async fn greet(socket: &Path) -> Result<(Channel, VersionResponse), Error> {
    let channel = Channel::connect(socket, GREETING).await?;
    let version = channel.version(GREETING).await?;
    Ok((channel, version))
}

/// The events of a runtime. Only that there was one matters: the list that follows tells what is.
pub(super) enum Events {
    Containerd(Stream<Envelope>),
    Cri(Stream<ContainerEventResponse>),
    None,
}

impl Events {
    /// containerd's own events are older than those of CRI and say the same.
    pub(super) async fn open(channel: &Channel, runtime: &str) -> Result<Self, Error> {
        if runtime == "containerd" {
            channel.containerd_tasks().await.map(Self::Containerd)
        } else {
            channel.events().await.map(Self::Cri)
        }
    }

    pub(super) fn source(&self) -> &'static str {
        match self {
            Self::Containerd(_) => "containerd",
            Self::Cri(_) => "cri",
            Self::None => "none",
        }
    }

    /// Waits for the next one. A runtime that refuses has none: it is asked now and then from there on. An error is the
    /// end of the connection.
    pub(super) async fn next(&mut self) -> Result<(), Error> {
        let why = match self {
            Self::Containerd(events) => ended(events).await?,
            Self::Cri(events) => ended(events).await?,
            Self::None => std::future::pending().await,
        };
        if let Some(why) = why {
            tracing::info!(why, "the container runtime has no events; it is asked for its pods now and then");
            *self = Self::None;
        }
        Ok(())
    }
}

/// Waits for an event; says why where there are none any more. A stream that ends well is over just the same.
async fn ended<A: Message + Default>(events: &mut Stream<A>) -> Result<Option<String>, Error> {
    match events.next().await {
        Ok(Some(_)) => Ok(None),
        Ok(None) => Ok(Some("the stream ended".into())),
        Err(error @ Error::Refused { .. }) => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

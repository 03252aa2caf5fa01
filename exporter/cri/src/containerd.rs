//! containerd's own events, on the socket of its CRI: it has had them long before CRI got events.

use crate::{Channel, Error, Stream};

/// The namespace that containerd keeps Kubernetes' containers in.
const KUBERNETES: &str = "k8s.io";

/// Asks for the events that match any of the filters.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SubscribeRequest {
    /// In containerd's filter language.
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// An event. What it is about is not read: the list that follows tells.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    /// Such as `/tasks/start`.
    #[prost(string, tag = "3")]
    pub topic: String,
}

impl Channel {
    /// Starts and ends of the processes of containers; `Unimplemented` where the runtime is not containerd.
    pub async fn containerd_tasks(&self) -> Result<Stream<Envelope>, Error> {
        let of = |topic: &str| format!("namespace==\"{KUBERNETES}\",topic==\"{topic}\"");
        let filters = ["/tasks/start", "/tasks/exit"].map(of).into();
        let question = SubscribeRequest { filters };
        self.stream("/containerd.services.events.v1.Events/Subscribe", &question).await
    }
}

use importguard_proto::decider::{
    DecideRequest, decide_response::Verdict, decider_client::DeciderClient,
};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use crate::Service;

/// A gRPC client of a decider.
#[derive(Clone, Debug)]
pub struct DecideClient(DeciderClient<Channel>);

impl DecideClient {
    /// Connects to `decider`, or one that has its address later.
    pub fn of(decider: &Service) -> Self {
        Self::at(decider.grpc_url())
    }

    /// Connects to a decider at `url`.
    pub fn at(url: impl Into<bytes::Bytes>) -> Self {
        let channel = Channel::from_shared(url).expect("a URL");
        Self(DeciderClient::new(channel.connect_lazy()))
    }

    /// Whether it refuses an import of one friend by `owner`.
    pub async fn refuses(&self, owner: &str) -> anyhow::Result<bool> {
        let mut request = Request::new(DecideRequest {
            decision_id: "0193c0de-0000-7000-8000-000000000001".to_owned(),
            owner_user_id: owner.to_owned(),
            friend_user_ids: vec!["friend".to_owned()],
        });
        let operation = MetadataValue::from_static("op");
        request.metadata_mut().insert("operationid", operation);
        let answer = self.0.clone().decide(request).await?.into_inner();
        Ok(matches!(answer.verdict, Some(Verdict::Refuse(_))))
    }
}

use crate::{RawConnection, Response};

/// A callback whose body the test withholds.
#[derive(Debug)]
pub struct HeldCall {
    connection: RawConnection,
    body: String,
}

impl HeldCall {
    /// Sends the head, and returns when the gateway asks for the body (`100 Continue`).
    pub async fn begin(address: &str, operation_id: &str, body: &str) -> Self {
        let mut connection = RawConnection::open(address).await;
        let head = format!(
            "POST /callbackBeforeImportFriendsCommand HTTP/1.1\r\nHost: {address}\r\n\
             Content-Type: application/json\r\nOperationid: {operation_id}\r\nContent-Length: {}\r\n\
             Expect: 100-continue\r\nConnection: close\r\n\r\n",
            body.len()
        );
        connection.send(head).await.unwrap();
        assert_eq!(connection.answer().await.status, 100);
        Self {
            connection,
            body: body.to_owned(),
        }
    }

    /// Sends half of the body.
    pub async fn trickle(&mut self) {
        let (half, rest) = self.body.split_at(self.body.len() / 2);
        self.connection.send(half).await.unwrap();
        self.body = rest.to_owned();
    }

    /// Sends the rest of the body and returns the answer.
    pub async fn finish(mut self) -> Response {
        self.connection.send(&self.body).await.unwrap();
        self.answer().await
    }

    /// Returns the answer to a callback whose body never comes.
    pub async fn answer(mut self) -> Response {
        self.connection.answer().await
    }
}
